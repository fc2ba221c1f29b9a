"""What every source of code has in common: files named by path and git blob id.

Knows nothing of where the files come from.
"""

import hashlib
from dataclasses import dataclass

REGULAR_MODES = (0o100644, 0o100755, 0o100664)
"""Git modes of a plain file; 0o120000 is a symbolic link, 0o160000 a submodule. 0o100664 is of old histories."""


class RepositoryError(RuntimeError):
    """A source of code cannot be read; the message names it, says what was found and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file of a tree."""

    path: str
    """POSIX path inside the tree; bytes that are not UTF-8 are written as `\\xNN`."""
    blob_id: str
    """Git object id of the content."""
    size: int
    """Bytes; 0 for a submodule, -1 where the object is missing: whoever needs it finds out when reading it."""
    mode: int = 0o100644


def blob_id_of(content: bytes) -> str:
    """The object id that git (SHA-1 format) gives to a file of this content."""
    sha = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    sha.update(content)
    return sha.hexdigest()
