"""Which model is live: the pointer `checkpoint-latest`, its history, and the way back.

The pointer is the only desired state. The history is an account of how it got there, written after the fact: where
the two differ, the pointer is right.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embed_assets.checkpoints.manifest import CheckpointCorruptError, read_manifest, verify
from embed_assets.files import StoreError, append_line, exclusive, point_link, read_lines, sync_directory
from embed_assets.records import BASE
from embed_assets.store import Store


class RollbackError(RuntimeError):
    """There is no checkpoint to go back to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveModel:
    """What `checkpoint-latest` points to."""

    checkpoint_id: str
    path: Path
    digest: str
    """`encoder.digest.model_digest` of its files, as promoted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a promotion or a rollback made live."""

    checkpoint_id: str
    """`base` when a rollback led back to the base model."""
    path: Path | None
    """None for `base`, which is no checkpoint."""
    digest: str
    """Empty for `base`."""
    replaced: str
    """Id of what was live before."""


def live_model(store: Store) -> LiveModel | None:
    """The live checkpoint; None while the base model is live.

    Raises:
        StoreError: the pointer dangles or leads out of the store.
        CheckpointCorruptError: the checkpoint has no manifest.
    """
    path = store.live_checkpoint()
    if path is None:
        return None
    return LiveModel(checkpoint_id=path.name, path=path, digest=read_manifest(path).model_digest)


def checkpoint_ids(store: Store) -> list[str]:
    """Ids of all finished checkpoints, sorted: oldest first, as ids begin with their date."""
    if not store.checkpoints.is_dir():
        return []
    return sorted(path.parent.name for path in store.checkpoints.glob("[!.]*/manifest.json"))


def rollback(store: Store, to: str | None = None, *, reason: str = "by hand") -> Checkpoint:
    """Makes an earlier checkpoint live again, verified as at its promotion.

    Args:
        to: a checkpoint's id, or `base`; what was live before the present one when not given.

    Raises:
        RollbackError: nothing came before, or there is no such checkpoint; the message lists those there are.
        CheckpointCorruptError: the checkpoint is damaged; the pointer stays.
    """
    with locked(store):
        current = current_id(store)
        target = to if to is not None else _previous(store, current)
        if target == BASE:
            checkpoint = Checkpoint(checkpoint_id=BASE, path=None, digest="", replaced=current)
            if current != BASE:
                store.checkpoint_latest.unlink(missing_ok=True)
                sync_directory(store.checkpoint_latest.parent)
        else:
            path = _known_checkpoint(store, target)
            digest = verify(path).model_digest
            checkpoint = Checkpoint(checkpoint_id=target, path=path, digest=digest, replaced=current)
            point_link(store.checkpoint_latest, path)
        if target != current:
            record(store, "rollback", checkpoint, reason=reason)
        return checkpoint


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """One promotion or rollback at a time, across processes; the next one waits."""
    store.checkpoints.mkdir(parents=True, exist_ok=True)
    with exclusive(store.checkpoints.parent / ".lock"):
        yield


def record(store: Store, event: str, checkpoint: Checkpoint, *, reason: str, report_digest: str = "") -> None:
    """Appends to the history what has just become live."""
    append_line(
        store.history,
        {
            "event": event,
            "id": checkpoint.checkpoint_id,
            "from": checkpoint.replaced,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "reason": reason,
            "report_digest": report_digest,
        },
    )


def current_id(store: Store) -> str:
    """Id the pointer names, `base` without one; a pointer that dangles still names what it meant."""
    try:
        path = store.live_checkpoint()
    except StoreError:
        return store.checkpoint_latest.readlink().name if store.checkpoint_latest.is_symlink() else BASE
    return path.name if path is not None else BASE


def lineage(events: Sequence[dict[str, Any]]) -> list[str]:
    """Ids that were promoted one upon the other, the base first, the live one last.

    A promotion stacks its id on what was live; a rollback to an id below takes off everything above it.
    """
    stack = [BASE]
    for event in events:
        for step in (event["from"], event["id"]):
            if step in stack:
                del stack[stack.index(step) + 1 :]
            else:
                stack.append(step)
    return stack


def _previous(store: Store, current: str) -> str:
    stack = lineage(read_lines(store.history))
    if current == BASE:
        raise RollbackError(f"the base model is live; nothing came before it. {_known(store)}")
    if current not in stack:
        raise RollbackError(f"the history does not tell what was live before {current}. {_known(store)}")
    return stack[stack.index(current) - 1]


def _known_checkpoint(store: Store, checkpoint_id: str) -> Path:
    if checkpoint_id not in checkpoint_ids(store):
        was_live = any(event["id"] == checkpoint_id for event in read_lines(store.history))
        gone = f"checkpoint {checkpoint_id} was removed to make room (retention.checkpoints)"
        raise RollbackError(f"{gone if was_live else f'there is no checkpoint {checkpoint_id!r}'}. {_known(store)}")
    return store.checkpoint(checkpoint_id)


def _known(store: Store) -> str:
    return f"Known are: {', '.join([BASE, *checkpoint_ids(store)])}; choose one with --to"


__all__ = [
    "BASE", "Checkpoint", "CheckpointCorruptError", "LiveModel", "RollbackError", "checkpoint_ids", "current_id",
    "lineage", "live_model", "locked", "record", "rollback",
]  # fmt: skip
