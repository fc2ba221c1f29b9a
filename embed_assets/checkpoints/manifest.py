"""The list of a checkpoint's files with their digests: what was promoted is what is loaded, or it is refused.

`manifest.json` is written last, so a folder without one was never finished. It knows nothing of models beyond
their digest.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embed_assets.files import StoreError, directory_digests, read_json, write_json

MANIFEST = "manifest.json"
FORMAT = 1


class CheckpointCorruptError(RuntimeError):
    """A checkpoint is not what its manifest says; it must not be loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Which files a checkpoint consists of."""

    checkpoint_id: str
    model_digest: str
    """`encoder.digest.model_digest` of the folder."""
    report_digest: str
    """Of the recall report that it was promoted with."""
    files: Mapping[str, str]
    """POSIX path -> SHA-256 of every file but the manifest itself."""
    format: int = FORMAT


def write_manifest(directory: Path, *, checkpoint_id: str, model_digest: str, report_digest: str) -> Manifest:
    """Lists the files of `directory` as they are now.

    Raises:
        StoreError: the directory holds a symbolic link.
    """
    manifest = Manifest(
        checkpoint_id=checkpoint_id,
        model_digest=model_digest,
        report_digest=report_digest,
        files=directory_digests(directory),
    )
    write_json(directory / MANIFEST, asdict(manifest))
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest of the checkpoint at `path`, its files not looked at.

    Raises:
        CheckpointCorruptError: there is none, or it cannot be read.
    """
    try:
        document: dict[str, Any] = read_json(path / MANIFEST)
        manifest = Manifest(**document)
        sound = manifest.format == FORMAT and all(
            isinstance(name, str) and isinstance(digest, str) for name, digest in manifest.files.items()
        )
    except (StoreError, TypeError, AttributeError) as error:
        raise CheckpointCorruptError(f"checkpoint {path.name} has no usable {MANIFEST}: {error}") from error
    if not sound:
        raise CheckpointCorruptError(
            f"checkpoint {path.name}: {MANIFEST} has format {manifest.format}, known is {FORMAT}"
        )
    return manifest


def verify(path: Path) -> Manifest:
    """Reads every file of the checkpoint at `path` and compares it with the manifest.

    Raises:
        CheckpointCorruptError: a file is missing, changed, unknown or a symbolic link; the message names it.
    """
    manifest = read_manifest(path)
    if manifest.checkpoint_id != path.resolve().name:
        raise CheckpointCorruptError(
            f"checkpoint {path.resolve().name} carries the manifest of {manifest.checkpoint_id}; it was renamed"
        )
    try:
        found = directory_digests(path)
    except (StoreError, OSError) as error:
        raise CheckpointCorruptError(f"checkpoint {path.name} cannot be verified: {error}") from error
    found.pop(MANIFEST, None)
    for name in sorted(manifest.files.keys() | found.keys()):
        problem = _difference(manifest.files.get(name), found.get(name))
        if problem:
            raise CheckpointCorruptError(
                f"checkpoint {manifest.checkpoint_id}: {name} {problem}; restore it from a backup, or go to another "
                "checkpoint with `embed-assets rollback`"
            )
    return manifest


def _difference(expected: str | None, found: str | None) -> str:
    if expected is None:
        return "is not in the manifest"
    if found is None:
        return "is missing"
    return "" if expected == found else f"was changed: its sha256 is {found}, promoted was {expected}"
