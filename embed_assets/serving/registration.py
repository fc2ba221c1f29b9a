"""How a running service is found, and how a second one on the same data directory is refused.

`service.json` holds URL, process id and admin token. Beside it lies a lock file whose lock the service holds as long
as it lives: the kernel drops it with the process, so that a stale record is told from a live one also after a crash,
and whatever process has that id by then. It imports no torch.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from embed_assets.files import StoreError, read_json, write_json
from embed_assets.store import Store

LOCK_SECONDS = 1.0
"""How long a start waits for the lock: a look at it by `is_running` holds it for microseconds."""


class AlreadyRunningError(RuntimeError):
    """Another service runs on this data directory."""


@dataclass(frozen=True, kw_only=True)
class ServiceRecord:
    """What `service.json` says."""

    url: str
    pid: int
    token: str = field(repr=False)
    """Of the admin endpoints."""
    started_at: str
    """ISO 8601, UTC."""


def write_record(store: Store, record: ServiceRecord) -> None:
    """Readable by this user alone, since it holds the admin token."""
    write_json(store.service, asdict(record), mode=0o600)


def read_record(store: Store) -> ServiceRecord | None:
    """The record of a service that runs now; None without one, or when its process is gone.

    Raises:
        StoreError: there is one and it is damaged.
    """
    if not store.service.exists() or not is_running(store):
        return None
    try:
        return ServiceRecord(**read_json(store.service))
    except TypeError as error:
        raise StoreError(f"{store.service} is no record of a service: {error}; stop the service, delete it") from error
    except StoreError:
        if not store.service.exists():  # the service ended in between
            return None
        raise


def remove_record(store: Store) -> None:
    """At a clean end: nobody is to find a service that is gone, nor its word on what it serves."""
    store.service.unlink(missing_ok=True)
    store.live.unlink(missing_ok=True)


def lock_file(store: Store) -> Path:
    return store.service.with_suffix(".lock")


def is_running(store: Store) -> bool:
    """Whether a process holds the lock of this data directory."""
    try:
        descriptor = os.open(lock_file(store), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def only_service(store: Store) -> Iterator[None]:
    """Holds the lock of this data directory.

    Raises:
        AlreadyRunningError: another process holds it; names its URL and process id.
    """
    path = lock_file(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise AlreadyRunningError(_who_runs(store, path))
            time.sleep(0.02)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid()}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _who_runs(store: Store, path: Path) -> str:
    try:
        record = ServiceRecord(**read_json(store.service))
        who = f"at {record.url}, process {record.pid}"
    except (StoreError, TypeError):
        who = f"as process {path.read_text(encoding='utf-8') or 'unknown'}, still loading its model"
    return f"a service runs on {store.root} already, {who}; stop it first, or use another data directory"
