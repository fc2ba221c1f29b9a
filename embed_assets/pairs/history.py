"""What a repository's log says: who wrote which commit when, in what words, and which files it touched.

One `git log --raw` for the whole history, through GitPython; no blob is read here. Renames are git's own finding.
Knows nothing of definitions (`changes`) and of what makes a good query (`subjects`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from embed_assets.snippets.entries import REGULAR_MODES, RepositoryError

if TYPE_CHECKING:
    from embed_assets.snippets.git_source import GitSource

RENAME_LIMIT = 400
"""Renames are searched among at most so many added and deleted files of one commit; more is a reorganisation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileChange:
    """One file of one commit. Links and submodules are never listed."""

    path: str
    """After the commit; before it for a deleted file."""
    path_before: str
    """Differs from `path` when the file was renamed."""
    blob_before: str
    """Empty for an added file."""
    blob_after: str
    """Empty for a deleted file."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One commit, newest first in a history."""

    commit_id: str
    parents: tuple[str, ...]
    committed_at: int
    """Seconds since 1970, by the committer's clock: when it came to stand where it stands."""
    author: str
    """Name and address; only to tell programs from people, never stored."""
    subject: str
    files: tuple[FileChange, ...]
    """Against the only parent; empty for a merge."""


@dataclass(frozen=True)
class History:
    """The newest commits that `head` is built from, newest first in git's order."""

    commits: tuple[Commit, ...]

    @cached_property
    def _renames(self) -> tuple[tuple[int, str, str], ...]:
        return tuple(
            (place, change.path_before, change.path)
            for place, commit in enumerate(self.commits)
            for change in commit.files
            if change.path_before != change.path
        )

    @cached_property
    def _places(self) -> dict[str, int]:
        return {commit.commit_id: place for place, commit in enumerate(self.commits)}

    def path_at(self, path: str, *, of: str, at: int) -> str:
        """What `path`, as the commit `of` left it, is called in the tree at the time `at`; renames are followed.

        A file that did not exist at that time keeps its name; looking it up then finds nothing.
        """
        place = self._places[of]
        for renamed_in, before, after in reversed(self._renames):  # oldest first
            if renamed_in < place and self.commits[renamed_in].committed_at <= at and before == path:
                path = after
        for renamed_in, before, after in self._renames:  # newest first
            if renamed_in >= place and self.commits[renamed_in].committed_at > at and after == path:
                path = before
        return path


def read_history(source: "GitSource", *, max_commits: int) -> History:
    """The log of `source.head`.

    Raises:
        RepositoryError: git refused to read it.
    """
    import git

    separator = f"\x01{source.head}\x01"
    try:
        log: bytes = source.repo.git.execute(
            [
                *(
                    "git",
                    "-c",
                    "log.showSignature=false",
                    "-c",
                    "i18n.logOutputEncoding=UTF-8",
                    "-c",
                    "core.attributesFile=",
                ),
                *("log", f"--max-count={max_commits}", "--raw", "--no-abbrev", "-z", "-M", f"-l{RENAME_LIMIT}"),
                *("--no-color", "--no-ext-diff", "--no-textconv", "--root", "--ignore-submodules"),
                *(f"--format=%x01{source.head}%x01%H%x00%P%x00%ct%x00%an <%ae>%x00%s", source.head, "--"),
            ],
            stdout_as_string=False,
            strip_newline_in_stdout=False,
        )
    except git.GitCommandError as error:
        raise RepositoryError(f"{source.location}: git log failed: {str(error.stderr).strip()}") from error
    return History(tuple(_commit(record) for record in log.split(separator.encode())[1:]))


def _commit(record: bytes) -> Commit:
    commit_id, parents, committed_at, author, subject, *raw = record.split(b"\0")
    return Commit(
        commit_id=commit_id.decode(),
        parents=tuple(parents.decode().split()),
        committed_at=int(committed_at or 0),
        author=author.decode("utf-8", "replace"),
        subject=subject.decode("utf-8", "replace"),
        files=tuple(_file_changes(raw)),
    )


def _file_changes(raw: Sequence[bytes]) -> Iterator[FileChange]:
    """Records of `--raw -z`: `:mode mode blob blob status`, then one path, or two for a rename."""
    fields = iter(raw)
    for meta in fields:
        meta = meta.lstrip(b"\n")
        if not meta.startswith(b":"):
            continue
        mode_before, mode_after, blob_before, blob_after, status = meta[1:].decode().split(" ")
        path_before = path = next(fields).decode("utf-8", "backslashreplace")
        if status[0] in "RC":
            path = next(fields).decode("utf-8", "backslashreplace")
        modes = {int(mode, 8) for mode in (mode_before, mode_after)} - {0}
        if not modes <= set(REGULAR_MODES):
            continue
        yield FileChange(
            path=path,
            path_before=path_before if status[0] == "R" else path,
            blob_before="" if set(blob_before) == {"0"} else blob_before,
            blob_after="" if set(blob_after) == {"0"} else blob_after,
        )
