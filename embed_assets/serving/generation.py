"""A generation: one model as it is served, from its files to its warm-up. Nothing half-checked is ever handed out.

Loading is: confine the path to the store, verify the manifest's digests, load, compare with the golden vectors that
were written when the checkpoint was made, warm up. It knows nothing of HTTP, nor of which generation is live.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from embed_assets import models
from embed_assets.checkpoints.live import BASE
from embed_assets.checkpoints.manifest import verify
from embed_assets.encoder.digest import model_digest, space_id
from embed_assets.encoder.encoder import CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS, Encoder, Kind
from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.resolve import resolve
from embed_assets.encoder.tokens import token_rows
from embed_assets.files import StoreError, read_json
from embed_assets.settings import Settings
from embed_assets.store import Store

GOLDEN_COSINE = {"float32": 0.9999, "float16": 0.9995, "bfloat16": 0.998}
"""Least cosine with the golden vectors, by the coarser precision of the two computations: the right model reproduces
them to rounding, another night's is off in the second digit."""
UNCUT = 2**31
"""Longer than any input: tokenises without cutting."""
WARM_TEXTS = ("warm", "def warm(up): return up", " ".join(["warm up every kernel at the longest input"] * 64))

logger = logging.getLogger(__name__)


class GenerationError(RuntimeError):
    """A model may not be served: it is not in the store, damaged, or does not give the vectors it should."""


class UnknownCheckpointError(GenerationError):
    """No checkpoint of this id is in the store."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Generation:
    """One loaded, checked and warm model. A request is answered by exactly one."""

    checkpoint_id: str
    """Id of the checkpoint, or `base`."""
    name: str
    """Short name of the base model it descends from, such as `minilm`."""
    aliases: frozenset[str]
    """Other names a request may call it by."""
    encoder: Encoder = field(repr=False)
    path: Path
    digest: str
    """Digest of the servable files."""
    space_id: str
    """Which vector space: vectors of two ids are never compared."""
    dimensions: tuple[int, ...]
    """Lengths a vector may be asked for, the full one last."""
    loaded_at: str
    """ISO 8601, UTC."""
    load_seconds: float

    @property
    def model(self) -> str:
        """What answers say: `minilm@base`, or `minilm@` and the checkpoint's id."""
        return f"{self.name}@{self.checkpoint_id}"

    @property
    def created(self) -> int:
        """`loaded_at` in seconds since 1970."""
        return int(datetime.fromisoformat(self.loaded_at).timestamp())

    @property
    def dimension(self) -> int:
        return self.encoder.dimension

    @property
    def max_tokens(self) -> int:
        return self.encoder.max_tokens

    @property
    def batch_tokens(self) -> int:
        """Tokens of one forward pass; on a CPU small batches are faster and let others in sooner."""
        return CPU_BATCH_TOKENS if self.encoder.device.type == "cpu" else DEVICE_BATCH_TOKENS

    def tokenise(self, texts: Sequence[str], kind: Kind) -> list[list[int]]:
        """Token ids of each text as the model reads it, prompt and special tokens included, however long."""
        encoder = self.encoder
        prompt = encoder.query_prompt if kind == "query" else encoder.passage_prompt
        return token_rows(encoder.tokenizer, encoder.affixes, [prompt + text for text in texts], UNCUT)

    def cut(self, row: Sequence[int]) -> list[int]:
        """A row that is too long without its end, the closing tokens kept, as the encoder cuts it."""
        suffix = self.encoder.affixes.suffix
        return [*row[: self.max_tokens - len(suffix)], *suffix]

    def encode_rows(self, rows: Sequence[Sequence[int]]) -> np.ndarray:  # (rows, dim) float32, unit rows
        return self.encoder.encode_rows(rows, batch_tokens=self.batch_tokens)

    def describe(self) -> dict[str, Any]:
        """What status, live.json and the metrics say of it."""
        return {
            "model": self.model,
            "checkpoint_id": self.checkpoint_id,
            "digest": self.digest,
            "space_id": self.space_id,
            "dimension": self.dimension,
            "max_tokens": self.max_tokens,
            "device": str(self.encoder.device),
            "precision": self.encoder.precision,
            "loaded_at": self.loaded_at,
            "load_seconds": round(self.load_seconds, 3),
        }


def load_base(settings: Settings, name: str | None = None) -> Generation:
    """The base model of the settings, or the model called `name` (alias, path or hub name).

    Raises:
        ModelError: it cannot be found, or is no servable model.
    """
    found = resolve(name, "") if name is not None else resolve(settings.model.name, settings.model.revision)
    started = time.monotonic()
    encoder = load_encoder(
        found.path,
        device=settings.serving.device,
        max_tokens=settings.model.max_tokens if name is None else None,
        threads=settings.serving.threads,
    )
    return _generation(BASE, found.alias, found.spec, encoder, started)


def load_checkpoint(store: Store, settings: Settings, checkpoint_id: str) -> Generation:
    """The checkpoint `checkpoint_id` of the store, verified, checked against its golden vectors, and warm.

    Raises:
        UnknownCheckpointError: the id is no id, or there is no such checkpoint.
        CheckpointCorruptError: a file is missing, added, altered or a link.
        GenerationError: it does not reproduce its golden vectors.
        ModelError: it is no servable model.
    """
    path = confined(store, checkpoint_id)
    manifest = verify(path)
    started = time.monotonic()
    encoder = load_encoder(path, device=settings.serving.device, threads=settings.serving.threads)
    check_golden(encoder, path)
    generation = _generation(checkpoint_id, *_descent(path, settings), encoder, started)
    if generation.digest != manifest.model_digest:
        raise GenerationError(f"{path} holds model {generation.digest}, promoted was {manifest.model_digest}")
    return generation


def _descent(path: Path, settings: Settings) -> tuple[str, models.BaseModel | None]:
    """Short name and catalogue entry of the base model that a checkpoint was trained from, as its report says."""
    report = path / "report.json"
    base_model = str(read_json(report)["base_model"]) if report.is_file() else settings.model.name
    spec = models.known(base_model)
    return (spec.alias if spec is not None else Path(base_model).name), spec


def confined(store: Store, checkpoint_id: str) -> Path:
    """The folder of a checkpoint, certain to lie in the store: no path, no link leads elsewhere.

    Raises:
        UnknownCheckpointError: the id is no id, there is no such folder, or it is a link.
    """
    try:
        path = store.checkpoint(checkpoint_id)
    except StoreError as error:
        raise UnknownCheckpointError(str(error)) from error
    if path.is_symlink():
        raise UnknownCheckpointError(f"checkpoint {checkpoint_id} is a symbolic link; links are refused")
    if not path.is_dir() or path.resolve().parent != store.checkpoints.resolve():
        raise UnknownCheckpointError(f"there is no checkpoint {checkpoint_id!r} in {store.checkpoints}")
    return path


def check_golden(encoder: Encoder, path: Path) -> None:
    """Compares what the loaded model computes with the vectors written when the checkpoint was made.

    Raises:
        GenerationError: there are none, or a vector's cosine is below GOLDEN_COSINE.
    """
    texts, kinds, golden, precision = read_golden(path / "golden.safetensors")
    allowed = min(GOLDEN_COSINE[precision], GOLDEN_COSINE[encoder.precision])
    for kind in sorted(set(kinds)):
        rows = [index for index, of_row in enumerate(kinds) if of_row == kind]
        computed = encoder.encode([texts[index] for index in rows], kind="query" if kind == "query" else "passage")
        if computed.shape[1] != golden.shape[1]:
            raise GenerationError(f"{path} gives {computed.shape[1]} dimensions, its golden vectors {golden.shape[1]}")
        cosines = (computed * golden[rows]).sum(axis=1)  # (rows,)
        worst = int(np.argmin(cosines)) if np.isfinite(cosines).all() else int(np.argmax(~np.isfinite(cosines)))
        if not cosines[worst] >= allowed:
            raise GenerationError(
                f"{path} does not reproduce its golden vectors: cosine {cosines[worst]:.6f} for the {kind} "
                f"{texts[rows[worst]][:60]!r}, allowed is {allowed} or more; the model that was evaluated is "
                "not the one that would be served"
            )


def read_golden(path: Path) -> tuple[list[str], list[str], np.ndarray, str]:
    """Texts, their kinds, unit vectors (texts, dim), and the precision they were computed in.

    Raises:
        GenerationError: it is missing, damaged, or empty.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            texts = json.loads(metadata["texts"])
            kinds = json.loads(metadata["kinds"])
            precision = metadata.get("precision", "float32")
            vectors = np.asarray(file.get_tensor("vectors"), dtype=np.float32)
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise GenerationError(f"golden vectors {path} are missing or cannot be read: {error!r}") from error
    if not texts or len(texts) != len(vectors) or len(texts) != len(kinds):
        raise GenerationError(f"{path} holds {len(texts)} texts, {len(kinds)} kinds and {len(vectors)} vectors")
    if precision not in GOLDEN_COSINE:
        raise GenerationError(f"{path} has precision {precision!r}; allowed: {', '.join(GOLDEN_COSINE)}")
    return texts, kinds, vectors, precision


def _generation(
    checkpoint_id: str, name: str, spec: models.BaseModel | None, encoder: Encoder, started: float
) -> Generation:
    warm(encoder)
    digest = model_digest(encoder.path)
    generation = Generation(
        checkpoint_id=checkpoint_id,
        name=name,
        aliases=_aliases(name, spec),
        encoder=encoder,
        path=encoder.path,
        digest=digest,
        space_id=space_id(
            digest, dimension=encoder.dimension, max_tokens=encoder.max_tokens, precision=encoder.precision
        ),
        dimensions=(*(spec.matryoshka_dimensions if spec is not None else ()), encoder.dimension),
        loaded_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        load_seconds=time.monotonic() - started,
    )
    logger.info("loaded %s from %s in %.1f s", generation.model, generation.path, generation.load_seconds)
    return generation


def _aliases(name: str, spec: models.BaseModel | None) -> frozenset[str]:
    if spec is None:
        return frozenset({name})
    return frozenset({name, spec.alias, spec.repository, spec.repository.rsplit("/", 1)[-1]})


def warm(encoder: Encoder) -> None:
    """Runs short and longest inputs once, so that no request pays for first-time allocations and kernels."""
    encoder.encode(WARM_TEXTS, kind="query")
    encoder.encode(WARM_TEXTS, kind="passage")
