"""Bounds what the past takes on disk: old checkpoints and candidates' weights go, what can be asked for stays.

Never touched: the live checkpoint, the one before it, the one the service says it serves, the latest candidate, and
every report, verdict and training record, on which the count of attempts and the lineage rest. The history keeps
telling of what was removed.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embed_assets.checkpoints.live import checkpoint_ids, current_id, lineage, locked
from embed_assets.settings import RetentionSettings
from embed_assets.store import Store, StoreError, read_json, read_lines

WEIGHTS = ("model", "adapter", "golden.safetensors")
"""What of a candidate takes room."""
LEFT_OVER_SECONDS = 86_400
"""A folder that is still being written, or a benchmark that no candidate names yet, is younger than a day."""


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What was removed."""

    checkpoints: tuple[str, ...]
    candidates: tuple[str, ...]
    """Those that lost their weights."""
    benchmarks: tuple[str, ...]
    unfinished: tuple[str, ...]
    """Folders that a process which died left behind."""
    bytes: int

    def __bool__(self) -> bool:
        return bool(self.checkpoints or self.candidates or self.benchmarks or self.unfinished)

    @property
    def line(self) -> str:
        counted = {
            "old checkpoints": self.checkpoints,
            "old candidates' weights": self.candidates,
            "old benchmarks": self.benchmarks,
            "unfinished folders": self.unfinished,
        }
        said = ", ".join(f"{len(names)} {what}" for what, names in counted.items() if names)
        return f"removed {said or 'nothing'} ({self.bytes / 2**20:,.0f} MiB)"


def prune(store: Store, retention: RetentionSettings) -> Pruned:
    """Removes what is older than `retention` keeps. A crash in between leaves nothing that looks whole and is not.

    Raises:
        StoreError: the history or a candidate's report is damaged.
    """
    with locked(store):
        checkpoints = list(_old_checkpoints(store, retention.checkpoints))
        candidates = list(_old_candidates(store, retention.candidates))
        benchmarks = list(_old_benchmarks(store, {path.name for path in candidates}))
        unfinished = list(_unfinished(store))
        weights = [path / part for path in candidates for part in WEIGHTS if (path / part).exists()]
        size = sum(_remove(path) for path in (*checkpoints, *weights, *benchmarks, *unfinished))
    return Pruned(
        checkpoints=tuple(path.name for path in checkpoints),
        candidates=tuple(path.name for path in candidates),
        benchmarks=tuple(path.name for path in benchmarks),
        unfinished=tuple(path.name for path in unfinished),
        bytes=size,
    )


def _old_checkpoints(store: Store, keep: int) -> Iterator[Path]:
    """Beyond the `keep` newest of those that nobody needs."""
    needed = _needed(store)
    spare = [name for name in checkpoint_ids(store) if name not in needed]
    for name in spare[: max(0, len(spare) - keep)]:
        yield store.checkpoint(name)


def _needed(store: Store) -> set[str]:
    """Live, what a rollback without a name leads to, and what the service serves."""
    current = current_id(store)
    below = lineage(read_lines(store.history))
    before = below[below.index(current) - 1] if current in below[1:] else current
    served = read_json(store.live).get("checkpoint_id", "") if store.live.is_file() else ""
    return {current, before, str(served)}


def _old_candidates(store: Store, keep: int) -> Iterator[Path]:
    latest = store.latest_candidate.resolve().name
    heavy = [
        path
        for path in sorted(store.candidates.glob("[!.]*"))
        if not path.is_symlink() and path.name != latest and any((path / part).exists() for part in WEIGHTS)
    ]
    yield from heavy[: max(0, len(heavy) + 1 - keep)]


def _old_benchmarks(store: Store, light: set[str]) -> Iterator[Path]:
    """Those that are neither current nor named by the report of a candidate whose weights are there."""
    links = (store.current_benchmark, store.guard_benchmark, *store.external_benchmarks)
    named = {link.resolve().name for link in links}
    for path in store.candidates.glob("[!.]*/report.json"):
        if path.parent.name not in light and (path.parent / "model").is_dir():
            report = read_json(path)
            named |= {report.get("benchmark_digest", ""), report.get("guard_digest", "")}
    for path in sorted(store.benchmarks.glob("[!.]*")):
        if not path.is_symlink() and path.name not in named and _is_old(path):
            yield path


def _unfinished(store: Store) -> Iterator[Path]:
    """Hidden folders: under this name folders are written and removed."""
    for root in (store.checkpoints, store.candidates, store.benchmarks):
        yield from (path for path in sorted(root.glob(".*")) if path.is_dir() and _is_old(path))


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > LEFT_OVER_SECONDS


def _remove(path: Path) -> int:
    """Bytes that were freed. A folder takes a hidden name first, so that it is never met half removed."""
    if not path.is_dir():
        size = path.stat().st_size
        path.unlink()
        return size
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    hidden = path if path.name.startswith(".") else path.with_name(f".{path.name}.removed")
    try:
        if hidden != path:
            shutil.rmtree(hidden, ignore_errors=True)
            path.rename(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        raise StoreError(f"{path} cannot be removed: {error}; remove it by hand") from error
    return size
