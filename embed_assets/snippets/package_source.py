"""The source of an installed Python package, or of the standard library, as if it were a repository without history.

The package is found without being imported. Blob ids are the ones git would give. Knows nothing of git itself.
"""

import importlib.metadata
import importlib.util
import os
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from embed_assets.records import digest_of
from embed_assets.snippets.entries import Entry, RepositoryError, blob_id_of
from embed_assets.snippets.languages import language_of

SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages"})
STANDARD_LIBRARY = "standard-library"
"""`package:standard-library` is the source of the running Python's own library."""


class PackageSource:
    """Files below a folder, at the state of the moment they are listed."""

    repo = None
    notice = ""

    def __init__(self, *, name: str, root: Path, folders: Iterable[str] = (".",)) -> None:
        """
        Args:
            name: how reports call it.
            root: paths are relative to it.
            folders: files or folders below `root` to read.
        """
        self.name = name
        self.location = str(root)
        self.include: tuple[str, ...] = ()
        self.exclude: tuple[str, ...] = ()
        self._root = root
        self._entries = self._list(sorted(set(folders)))
        self._files = {entry.blob_id: root / entry.path for entry in self._entries}
        self.head = digest_of(*(f"{entry.path} {entry.blob_id}" for entry in self._entries))
        """Digest of all paths and contents."""

    def entries(self, revision: str = "") -> list[Entry]:
        """Every file of a known language, in path order.

        Raises:
            RepositoryError: a revision other than `head` is asked for; a package has no history.
        """
        if revision not in ("", self.head):
            raise RepositoryError(f"package {self.name} has no history, so no revision {revision!r}")
        return self._entries

    def read(self, blob_ids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Contents by blob id, in the order asked for.

        Raises:
            RepositoryError: a file vanished or changed since it was listed, or was never listed.
        """
        for blob_id in blob_ids:
            path = self._files.get(blob_id)
            if path is None:
                raise RepositoryError(f"package {self.name} holds no file with blob id {blob_id}")
            try:
                content = path.read_bytes()
            except OSError as error:
                raise RepositoryError(f"package {self.name}: {path} cannot be read any more: {error}") from error
            if blob_id_of(content) != blob_id:
                raise RepositoryError(f"package {self.name}: {path} changed while it was read; run again")
            yield blob_id, content

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> "PackageSource":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _list(self, folders: list[str]) -> list[Entry]:
        entries = []
        for path in (file for folder in folders for file in _walk(self._root / folder)):
            relative = path.relative_to(self._root).as_posix()
            if language_of(relative) is None:
                continue
            try:
                content = path.read_bytes()
            except OSError as error:
                raise RepositoryError(f"package {self.name}: {path} cannot be read: {error}") from error
            entries.append(Entry(path=relative, blob_id=blob_id_of(content), size=len(content)))
        if not entries:
            raise RepositoryError(f"package {self.name}: no source file of a known language below {self._root}")
        return sorted(entries, key=lambda entry: entry.path)


def open_package(package: str, name: str) -> PackageSource:
    """The installed package of this distribution or import name.

    Raises:
        RepositoryError: nothing of this name is installed, or it brings no source.
    """
    if package == STANDARD_LIBRARY:
        return standard_library(name)
    files = _files_of_distribution(package)
    if files:
        root = Path(str(importlib.metadata.distribution(package).locate_file("")))
        return PackageSource(name=name, root=root, folders=files)
    locations = _locations(package) or _locations(package.replace("-", "_"))
    if locations:
        return PackageSource(name=name, root=Path(locations[0]).parent, folders=[Path(locations[0]).name])
    raise RepositoryError(
        f"package:{package}: no installed package of this name (neither importable nor a distribution); "
        f"install it into this environment, or see `pip list`"
    )


def standard_library(name: str = STANDARD_LIBRARY) -> PackageSource:
    """The running Python's own library, its tests and bundled installers left out."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"test", "idlelib", "ensurepip", "lib2to3", "turtledemo", "lib-dynload", *SKIPPED_FOLDERS}
    folders = [
        path.name for path in root.iterdir() if path.name not in left_out and not path.name.startswith("config-")
    ]
    return PackageSource(name=name, root=root, folders=folders)


def _walk(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, names, files in os.walk(path):
        names[:] = sorted(name for name in names if name not in SKIPPED_FOLDERS)
        for file in sorted(files):
            found = Path(folder) / file
            if not found.is_symlink():
                yield found


def _files_of_distribution(package: str) -> list[str]:
    """Source files that a distribution installed, whatever and how many its top-level packages are; none where it is
    installed for editing, or is no distribution."""
    try:
        files = importlib.metadata.files(package) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return []
    return [
        file.as_posix()
        for file in files
        if language_of(file.name) is not None
        and not {"..", *SKIPPED_FOLDERS} & set(file.parts)
        and not file.name.startswith("__editable__")
        and Path(str(file.locate())).is_file()
    ]


def _locations(module: str) -> list[str]:
    """Folder of a package or file of a module, found without importing it: only names without a dot are looked up."""
    if not module.isidentifier():
        return []
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return list(spec.submodule_search_locations)
    return [spec.origin] if spec.origin and spec.origin.endswith(".py") else []
