"""Bounds what the past takes on disk: old checkpoints and candidates' weights go, what can be asked for stays.

Never touched: the live checkpoint, the one before it, the one the service says it serves, the latest candidate, and
every report, verdict and training record, on which the count of attempts and the lineage rest. The history keeps
telling of what was removed. Housekeeping costs no night: where a file that decides is damaged, what it decides on
stays.
"""

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embed_assets.checkpoints.live import checkpoint_ids, current_id, lineage, locked
from embed_assets.files import StoreError, read_json, read_lines
from embed_assets.settings import RetentionSettings
from embed_assets.store import Store

WEIGHTS = ("model", "adapter", "golden.safetensors")
"""What of a candidate takes room."""
LEFT_OVER_SECONDS = 86_400
"""A folder that is still being written, or a benchmark that no candidate names yet, is younger than a day."""
PROGRESS_SECONDS = 2 * LEFT_OVER_SECONDS
"""Of an interrupted training: the next night, a day later, goes on from it if its pairs are the same."""


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What was removed."""

    checkpoints: tuple[str, ...]
    candidates: tuple[str, ...]
    """Those that lost their weights."""
    benchmarks: tuple[str, ...]
    unfinished: tuple[str, ...]
    """What a process that died left behind: folders, and trainings' progress."""
    bytes: int
    in_doubt: tuple[str, ...] = ()
    """What stays although it may be old, a sentence each that names the file in the way."""

    def __bool__(self) -> bool:
        return bool(self.checkpoints or self.candidates or self.benchmarks or self.unfinished)

    @property
    def line(self) -> str:
        counted = {
            "old checkpoints": self.checkpoints,
            "old candidates' weights": self.candidates,
            "old benchmarks": self.benchmarks,
            "left-overs of processes that died": self.unfinished,
        }
        said = ", ".join(f"{len(names)} {what}" for what, names in counted.items() if names)
        return f"removed {said or 'nothing'} ({self.bytes / 2**20:,.0f} MiB)"


def prune(store: Store, retention: RetentionSettings) -> Pruned:
    """Removes what is older than `retention` keeps. A crash in between leaves nothing that looks whole and is not."""
    doubts: list[str] = []
    with locked(store):
        checkpoints = _sure("old checkpoints", _old_checkpoints(store, retention.checkpoints), doubts)
        candidates = _sure("old candidates' weights", _old_candidates(store, retention.candidates), doubts)
        light = {path.name for path in candidates}
        benchmarks = _sure("old benchmarks", _old_benchmarks(store, light), doubts)
        unfinished = _sure("left-overs of processes that died", _unfinished(store), doubts)
        weights = [path / part for path in candidates for part in WEIGHTS if (path / part).exists()]
        sizes = _remove_all([*checkpoints, *weights, *benchmarks, *unfinished], doubts)
    stuck = {path.parent for path in weights if path not in sizes}
    return Pruned(
        checkpoints=tuple(path.name for path in checkpoints if path in sizes),
        candidates=tuple(path.name for path in candidates if path not in stuck),
        benchmarks=tuple(path.name for path in benchmarks if path in sizes),
        unfinished=tuple(path.name for path in unfinished if path in sizes),
        bytes=sum(sizes.values()),
        in_doubt=tuple(doubts),
    )


def _sure(what: str, found: Iterable[Path], doubts: list[str]) -> list[Path]:
    """All that was found, or nothing where something in the way leaves it in doubt."""
    try:
        return list(found)
    except (StoreError, OSError) as error:
        doubts.append(f"{what} stay: {error}")
        return []


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
    served = _read_object(store.live).get("checkpoint_id", "") if store.live.is_file() else ""
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
            report = _read_object(path)
            named |= {report.get("benchmark_digest", ""), report.get("guard_digest", "")}
    for path in sorted(store.benchmarks.glob("[!.]*")):
        if not path.is_symlink() and path.name not in named and _is_old(path):
            yield path


def _unfinished(store: Store) -> Iterator[Path]:
    """Hidden folders, under whose names folders are written and removed, and progress that no night went on from."""
    candidates = [path for path in sorted(store.candidates.glob("[!.]*")) if not path.is_symlink()]
    for root in (store.checkpoints, store.candidates, store.benchmarks, *candidates):
        yield from (path for path in sorted(root.glob(".*")) if path.is_dir() and _is_old(path))
    for pattern in ("progress-*.safetensors", ".progress-*.safetensors.*"):
        yield from (path for path in sorted(store.runs.glob(pattern)) if _is_old(path, PROGRESS_SECONDS))


def _read_object(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if not isinstance(document, dict):
        raise StoreError(f"{path} is damaged: it holds no JSON object; delete it and run again")
    return document


def _is_old(path: Path, seconds: int = LEFT_OVER_SECONDS) -> bool:
    return time.time() - path.stat().st_mtime > seconds


def _remove_all(paths: Iterable[Path], doubts: list[str]) -> dict[Path, int]:
    """Bytes freed by path, without those that cannot be removed."""
    sizes = {}
    for path in paths:
        try:
            sizes[path] = _remove(path)
        except OSError as error:
            doubts.append(f"{path} cannot be removed: {error}; remove it by hand")
    return sizes


def _remove(path: Path) -> int:
    """Bytes that were freed. A folder takes a hidden name first, so that it is never met half removed."""
    if not path.is_dir():
        size = path.stat().st_size
        path.unlink()
        return size
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    hidden = path if path.name.startswith(".") else path.with_name(f".{path.name}.removed")
    if hidden != path:
        shutil.rmtree(hidden, ignore_errors=True)
        path.rename(hidden)
    shutil.rmtree(hidden)
    return size
