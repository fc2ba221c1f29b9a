"""A warm start: another store's adapter, in whose place this store's training begins, and what it has learnt from.

Two stages ask: the pairs, so that nothing that it learnt judges, and the training, which continues it. Read without
torch; whether the weights themselves are sound shows when they are loaded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embed_assets.checkpoints.manifest import MANIFEST, CheckpointCorruptError, read_manifest
from embed_assets.files import StoreError, directory_digests, file_sha256, read_json
from embed_assets.records import digest_of_json
from embed_assets.settings import Settings
from embed_assets.store import Store

ADAPTER = "adapter"
WEIGHTS = "adapter_model.safetensors"
ALLOWED = "allowed: a checkpoint or a candidate of another store, such as its data/models/checkpoint-latest"


class WarmStartError(RuntimeError):
    """What `training.start_from` names is nothing to start from."""


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """An adapter to begin with."""

    start_id: str
    """Of the candidate that it is, or was before its promotion."""
    path: Path
    digest: str
    """Of all that decides where a training begins: the adapter's files, and the share of it that was merged."""
    base_name: str
    base_digest: str
    rank: int
    alpha: int
    targets: tuple[str, ...]
    delta_scale: float
    """The saved adapter is what was learnt times this."""
    query_digests: frozenset[str]
    """Of every query that it, and what it started from itself, was trained on."""
    learnt_until: Mapping[str, int]
    """Repository -> the latest T up to which its history was learnt from, or its newest commit where there was no T."""

    @property
    def weights(self) -> Path:
        return self.path / ADAPTER / WEIGHTS

    def cutoff_for(self, repositories: Iterable[str]) -> int:
        """The latest T of those of the repositories that it has learnt from: what judges it there is younger."""
        return max((self.learnt_until.get(name, 0) for name in repositories), default=0)


def configured_start(settings: Settings) -> WarmStart | None:
    """The adapter that `training.start_from` names; None where training begins with none.

    Raises:
        WarmStartError: it is nothing to start from, or this very store's: a night that continues its own live adapter
            learns the same rows once more whenever it was promoted, and forgets more each time.
    """
    path = settings.training.start_from
    if path is None:
        return None
    store = Store(settings.data_dir)
    folder = path.resolve()
    for own in (store.candidates, store.checkpoints):
        if folder.is_relative_to(own.resolve()):
            raise _error(path, f"belongs to this store itself, whose nights begin anew each time; {ALLOWED}")
    return read_warm_start(path)


def read_warm_start(path: Path) -> WarmStart:
    """The adapter in the folder of a checkpoint or a candidate.

    Raises:
        WarmStartError: there is no such folder, it holds no adapter of this package, or one that is damaged.
    """
    _require_adapter(path)
    folder = path.resolve()
    try:
        files = directory_digests(folder / ADAPTER)
        _require_as_promoted(folder, files)
        training, adapter = read_json(folder / "training.json"), read_json(folder / ADAPTER / "adapter_config.json")
    except (CheckpointCorruptError, StoreError, OSError) as error:
        raise _error(path, f"is damaged: {error}") from error
    try:
        return _warm_start(folder, files, training, adapter)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"holds a training.json or adapter_config.json that this version cannot read ({error!r})"
        raise _error(path, f"{said}; train it again") from error


def _warm_start(folder: Path, files: Mapping[str, str], training: Any, adapter: Any) -> WarmStart:
    scale = float(training["recipe"]["delta_scale"])
    return WarmStart(
        start_id=str(training["candidate_id"]),
        path=folder,
        digest=digest_of_json([files, scale]),
        base_name=str(training["base_model"] or training["base_name"]),
        base_digest=str(training["base_digest"]),
        rank=int(adapter["r"]),
        alpha=int(adapter["lora_alpha"]),
        targets=tuple(sorted(adapter["target_modules"])),
        delta_scale=scale,
        query_digests=frozenset(training["query_digests"]),
        learnt_until={str(name): int(until) for name, until in training["learnt_until"].items()},
    )


def _require_adapter(path: Path) -> None:
    if not path.is_dir():
        unpromoted = " (nothing is promoted there yet)" if path.name == "checkpoint-latest" else ""
        raise _error(path, f"does not exist{unpromoted}; {ALLOWED}")
    if (path / ADAPTER / WEIGHTS).is_file():
        if not (path / "training.json").is_file():
            raise _error(path, f"has no training.json, so nobody knows what it has learnt from; {ALLOWED}")
        return
    if (path / "training.json").is_file():
        raise _error(path, f"has lost its adapter ({ADAPTER}/{WEIGHTS}), as old candidates do; name a newer one")
    what = "is a model without an adapter: there is nothing" if (path / "config.json").is_file() else "holds no adapter"
    raise _error(path, f"{what} to start from; {ALLOWED}")


def _require_as_promoted(folder: Path, files: Mapping[str, str]) -> None:
    """A checkpoint's adapter and training.json are those of its manifest, wherever it was copied to."""
    if not (folder / MANIFEST).is_file():
        return
    promoted = read_manifest(folder).files
    found = {f"{ADAPTER}/{name}": digest for name, digest in files.items()}
    found["training.json"] = file_sha256(folder / "training.json")
    expected = {name: digest for name, digest in promoted.items() if name in found or name.startswith(f"{ADAPTER}/")}
    changed = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if changed:
        raise CheckpointCorruptError(f"{', '.join(changed)} is not as it was promoted")


def _error(path: Path, said: str) -> WarmStartError:
    return WarmStartError(f"training.start_from: {path} {said}")
