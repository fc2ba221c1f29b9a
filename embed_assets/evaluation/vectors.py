"""Vectors of a benchmark's texts, kept on disk: what a model embedded last night it does not embed again.

vectors/SPACE_ID/NAME.safetensors holds the texts' digests, their vectors, and a checksum. Vectors of two models
lie in two folders and can never be mixed. A damaged file is embedded anew.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from embed_assets.evaluation.errors import EvaluationError
from embed_assets.files import exclusive, write_file

Floats = npt.NDArray[np.float32]
Digests = npt.NDArray[np.uint8]
Kind = Literal["passage", "query"]
DIGEST_BYTES = 20
UNIT_TOLERANCE = 0.02
"""Of a vector's length: bfloat16 rounds to two to three digits."""
logger = logging.getLogger(__name__)


class TextEncoder(Protocol):
    """What evaluation needs of an encoder."""

    @property
    def space_id(self) -> str: ...

    def encode(self, texts: Sequence[str], *, kind: Kind, progress: Callable[[int], None] | None = None) -> Floats: ...

    def encode_documents(
        self, texts: Sequence[str], parts: Sequence[Sequence[str]], *, progress: Callable[[int], None] | None = None
    ) -> Floats: ...


def embed(
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    kind: Kind,
    name: str,
    root: Path,
    parts: Sequence[Sequence[str]] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> Floats:
    """Vectors of `texts`, in their order; only texts that the file `name` does not hold are embedded.

    Args:
        name: of the file: one for each use, such as `guard-passage`. It holds the last call's texts, no more.
        root: the folder of all spaces.
        parts: (texts,) of a corpus: what stands for each passage that the model cannot read whole, empty for others.
        progress: called with the number of texts finished since the last call, those found on disk included.

    Returns:
        (texts, dim) float32, unit rows.

    Raises:
        EvaluationError: the model gives a vector that is no number, or not of unit length.
    """
    keys = _digests(kind, texts, parts)
    place = {key: number for number, key in enumerate(keys)}
    path = root / encoder.space_id / f"{name}.safetensors"
    stored = _read(path)
    missing = [key for key in place if key not in stored]
    progress(len(texts) - len(missing))
    if missing:
        lacking = [texts[place[key]] for key in missing]
        if parts:
            fresh = encoder.encode_documents(lacking, [parts[place[key]] for key in missing], progress=progress)
        else:
            fresh = encoder.encode(lacking, kind=kind, progress=progress)
        _require_unit_vectors(fresh, lacking, encoder.space_id)
        stored |= dict(zip(missing, fresh, strict=True))
    vectors = np.stack([stored[key] for key in place]) if keys else np.empty((0, 0), dtype=np.float32)
    if missing:
        _write(path, list(place), vectors)
    row = {key: number for number, key in enumerate(place)}
    return vectors[[row[key] for key in keys]]


def stored_vectors(
    texts: Sequence[str], *, kind: Kind, name: str, space_id: str, root: Path, parts: Sequence[Sequence[str]] = ()
) -> Floats:
    """What `embed` left on disk of `texts`, in their order: (texts, dim) float32.

    Raises:
        EvaluationError: one of them is not there.
    """
    stored = _read(root / space_id / f"{name}.safetensors")
    keys = _digests(kind, texts, parts)
    missing = sum(key not in stored for key in keys)
    if missing:
        raise EvaluationError(f"{missing} of {len(keys)} texts have no vector in {root / space_id}; evaluate first")
    return np.stack([stored[key] for key in keys])


@contextmanager
def in_turn(root: Path) -> Iterator[None]:
    """Holds the vectors for one evaluation: each removes those of models it did not ask, so others wait."""
    with exclusive(root / ".lock"):
        yield


def prune(root: Path, keep: Collection[str]) -> None:
    """Removes the vectors of every space but those in `keep`."""
    if root.is_dir():
        for folder in root.iterdir():
            if folder.is_dir() and folder.name not in keep:
                shutil.rmtree(folder)


def _require_unit_vectors(vectors: Floats, texts: Sequence[str], space_id: str) -> None:
    wrong = ~(np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < UNIT_TOLERANCE)  # NaN is wrong, too
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise EvaluationError(
            f"the model of space {space_id} is broken: {int(wrong.sum())} of {len(texts)} texts get no vector of unit "
            f"length, such as {texts[first][:60]!r}; it cannot be served"
        )


def _digests(kind: Kind, texts: Sequence[str], parts: Sequence[Sequence[str]]) -> list[bytes]:
    """Of everything that decides each vector within a space."""
    if not parts:
        return [_digest(kind, text) for text in texts]
    return [_digest(kind, text, *divided) for text, divided in zip(texts, parts, strict=True)]


def _digest(*content: str) -> bytes:
    return hashlib.sha256("\0".join(content).encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]


def _read(path: Path) -> dict[bytes, Floats]:
    """What the file holds; nothing if there is none, or it is damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return {}
    try:
        with safe_open(path, framework="numpy") as file:
            digests, vectors = file.get_tensor("digests"), file.get_tensor("vectors")
            claimed = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        logger.warning("%s is damaged (%s): its texts are embedded again", path, error)
        return {}
    if claimed != _checksum(digests, vectors) or len(digests) != len(vectors):
        logger.warning("%s does not match its checksum: its texts are embedded again", path)
        return {}
    return dict(zip((row.tobytes() for row in digests), vectors, strict=True))


def _write(path: Path, keys: Sequence[bytes], vectors: Floats) -> None:
    from safetensors.numpy import save_file

    digests = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), DIGEST_BYTES)
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    tensors: dict[str, npt.NDArray[Any]] = {"digests": digests, "vectors": rows}
    metadata = {"sha256": _checksum(digests, rows)}
    write_file(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def _checksum(digests: Digests, vectors: Floats) -> str:
    sha = hashlib.sha256(np.ascontiguousarray(digests).tobytes())
    sha.update(str(vectors.shape).encode())
    sha.update(np.ascontiguousarray(vectors).tobytes())
    return sha.hexdigest()
