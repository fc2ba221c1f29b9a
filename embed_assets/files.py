"""The only ways to write under the data directory, and to read back: whole or not at all.

What is written has a temporary name until it is complete and on the disk; a reader sees the old content or the new,
also after a crash. Where things lie is `store`'s matter.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class StoreError(RuntimeError):
    """Something under the data directory is missing, unreadable or damaged."""


class DiskFullError(StoreError, OSError):
    """There is no room for what was to be written; nothing half written is left."""


logger = logging.getLogger(__name__)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or a limit on the size of files."""


def write_bytes(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replaces `path` atomically and durably: a reader sees the old content or the new, also after a crash.

    Raises:
        DiskFullError: there is no room.
    """
    write_file(path, lambda temporary: temporary.write_bytes(content), mode=mode)


def write_text(path: Path, content: str, *, mode: int = 0o644) -> None:
    write_bytes(path, content.encode("utf-8"), mode=mode)


def write_json(path: Path, document: Any, *, mode: int = 0o644) -> None:
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n", mode=mode)


def write_file(path: Path, write: Callable[[Path], Any], *, mode: int = 0o644) -> None:
    """Replaces `path` atomically with what `write` puts at the temporary path it is given (a parquet table, say).

    Raises:
        DiskFullError: there is no room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        write(Path(temporary))
        os.chmod(temporary, mode)
        sync_file(Path(temporary))
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        _explain_full_disk(path, error)
        raise
    sync_directory(path.parent)


def read_json(path: Path) -> Any:
    """The document at `path`.

    Raises:
        StoreError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise StoreError(f"{path} is damaged or cannot be read: {error}; delete it and run again") from error


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Holds the file `lock`, across processes; the next one waits, and says so in the log."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process is at work in %s; waiting for it", lock.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A folder to fill; it takes the name `path` only when the block ends without an error.

    Raises:
        StoreError: `path` exists already; directories are immutable once they have their name.
        DiskFullError: there is no room.
    """
    if path.exists():
        raise StoreError(f"{path} exists already and is immutable")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        for folder, _, names in os.walk(temporary):
            for name in names:
                sync_file(Path(folder) / name)
            sync_directory(Path(folder))
        os.rename(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _explain_full_disk(path, error)
        raise
    sync_directory(path.parent)


def _explain_full_disk(path: Path, error: BaseException) -> None:
    """
    Raises:
        DiskFullError: that is what the error is about; libraries written in Rust say it in words only.
    """
    number = error.errno if isinstance(error, OSError) else None
    told = re.search(r"\(os error (\d+)\)", str(error))
    if number in FULL_DISK or (told is not None and int(told[1]) in FULL_DISK):
        raise DiskFullError(f"{path} cannot be written, there is no room for it: {error}; free some space") from error


def point_link(link: Path, target: Path) -> None:
    """Points the relative symbolic link `link` at `target`, atomically: there is no moment without it."""
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.parent / f".{link.name}.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    os.replace(temporary, link)
    sync_directory(link.parent)


def append_line(path: Path, document: Any) -> None:
    """Appends one JSON document as a line, durably; a line that a crash cut off is taken out first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(document, ensure_ascii=False, sort_keys=True) + "\n"
    with path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        file.write(line.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[Any]:
    """The documents of a JSON-lines file; a last line cut off by a crash is left out. Empty without the file."""
    if not path.exists():
        return []
    documents = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            documents.append(json.loads(line.decode("utf-8")))
        except ValueError as error:
            if number == len(lines):
                break
            raise StoreError(f"{path}, line {number} is damaged: {error}") from error
    return documents


def read_documents(path: Path, *, malformed: type[Exception]) -> list[tuple[str, Any]]:
    """(`PATH, line N`, document) of a JSON-lines file written elsewhere; empty lines are passed over.

    Raises:
        StoreError: there is no such file, or it is not UTF-8.
        malformed: a line is not JSON.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            found.append((where, json.loads(line)))
        except json.JSONDecodeError as error:
            raise malformed(f"{where} is not JSON: {error}") from error
    return found


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def directory_digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below `directory`, by POSIX path relative to it.

    Raises:
        StoreError: the directory holds a symbolic link, which could point anywhere.
    """
    digests = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise StoreError(f"{directory} holds a symbolic link, {name}; links are refused")
        if path.is_file():
            digests[name] = file_sha256(path)
    return digests


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
