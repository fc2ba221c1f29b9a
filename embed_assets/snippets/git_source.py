"""One git repository as a source of code: commits, trees and blobs, read without a work tree.

Objects come through one persistent `git cat-file --batch`, started by GitPython: a process per blob would be
twenty times slower. Only commands that run no code of the repository are used (no hooks, no external diff, no
filters). Knows nothing of languages.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.snippets.entries import Entry, RepositoryError

if TYPE_CHECKING:
    import git

REQUESTS_IN_FLIGHT = 256
"""Object ids written before their answers are read: about 10 kB, below the smallest pipe buffer (16 kB)."""
REDIRECTING_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE")
"""Set inside git hooks: they would send every git command to another repository."""


class GitSource:
    """A git repository at one revision. Not for use from several threads at once; close it after use."""

    def __init__(self, *, name: str, location: str, repo: "git.Repo", branch: str = "", notice: str = "") -> None:
        """
        Args:
            name: how reports call it.
            location: what the user gave: path or URL; for messages.
            repo: the opened repository, bare or not.
            branch: branch, tag or commit to read; HEAD when empty.
            notice: something the user should know although the repository can be read.

        Raises:
            RepositoryError: the history is empty, or there is no such branch.
        """
        self.name = name
        self.location = location
        self.repo = repo
        self.notice = notice
        self.include: tuple[str, ...] = ()
        """Globs of the settings; `collect` obeys them at every revision."""
        self.exclude: tuple[str, ...] = ()
        self._batch: Any = None
        self.head = self._head(branch)

    def entries(self, revision: str = "") -> list[Entry]:
        """Every file of the tree at `revision` (`head` when empty), links and submodules included, in path order.

        Raises:
            RepositoryError: no such revision.
        """
        listing = self._run("ls-tree", "-r", "-z", "-l", "--full-tree", self.resolve(revision))
        entries = []
        for record in listing.split(b"\0")[:-1]:
            meta, _, path = record.partition(b"\t")
            mode, _, blob_id, size = meta.split()
            entries.append(
                Entry(
                    path=path.decode("utf-8", "backslashreplace"),
                    blob_id=blob_id.decode(),
                    size=0 if size == b"-" else -1 if size == b"BAD" else int(size),
                    mode=int(mode, 8),
                )
            )
        return entries

    def read(self, blob_ids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Contents of blobs, in the order asked for.

        Raises:
            RepositoryError: an object is not there, as in a partial clone.
        """
        remaining = iter(blob_ids)
        while window := list(islice(remaining, REQUESTS_IN_FLIGHT)):
            batch = self._cat_file()
            answered = False
            try:
                batch.stdin.write("".join(f"{blob_id}\n" for blob_id in window).encode())
                batch.stdin.flush()
                contents = [self._answer(batch, blob_id) for blob_id in window]
                answered = True
            except OSError as error:
                raise RepositoryError(
                    f"{self.location}: git stopped answering while blobs were read: {error}"
                ) from error
            finally:
                if not answered:
                    self.close()  # What the broken conversation left in the pipe answers no later question.
            yield from zip(window, contents, strict=True)

    def resolve(self, revision: str = "") -> str:
        """Commit id of a branch, tag, commit-ish; of `head` when empty.

        Raises:
            RepositoryError: no such revision, or it is no commit.
        """
        if not revision or revision == self.head:
            return self.head
        commit = self._commit(revision)
        if not commit:
            raise RepositoryError(f"{self.location}: there is no commit {revision!r}")
        return commit

    def commit_at(self, time: int, revision: str = "") -> str:
        """The last commit on the first-parent line of `revision` that was committed at or before `time`.

        Args:
            time: seconds since 1970.

        Returns:
            A commit id; empty when the history begins later.
        """
        output = self._run("rev-list", "-1", "--first-parent", f"--min-age={time}", self.resolve(revision), "--")
        return output.decode().strip()

    def close(self) -> None:
        """Ends the object process. The source can be used again; it starts another one."""
        if self._batch is None:
            return
        process, self._batch = self._batch.proc, None
        if process is None:
            return
        process.stdin.close()
        process.stdout.close()
        process.stderr.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> "GitSource":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.repo.close()

    def _head(self, branch: str) -> str:
        if branch:
            commit = self._commit(branch) or self._commit(f"refs/remotes/origin/{branch}")
            if commit:
                return commit
            raise RepositoryError(f"{self.location}: there is no branch {branch!r}; {self._known_branches()}")
        commit = self._commit("HEAD")
        if commit:
            return commit
        if self._branches():
            raise RepositoryError(
                f"{self.location}: HEAD points to a branch without commits; {self._known_branches()}; set `branch`"
            )
        raise RepositoryError(f"{self.location}: the history is empty; commit something first")

    def _commit(self, revision: str) -> str:
        """Commit id, or empty."""
        import git

        try:
            commit: str = self.repo.git.rev_parse("--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
            return commit
        except git.GitCommandError as error:
            explain_ownership(error, self.location)
            return ""

    def _branches(self) -> list[str]:
        references = ("refs/heads", "refs/remotes/origin")
        names = self._run("for-each-ref", "--sort=-committerdate", "--format=%(refname:lstrip=2)", *references)
        return [name.removeprefix("origin/") for name in names.decode("utf-8", "replace").splitlines()]

    def _known_branches(self) -> str:
        names = [name for name in dict.fromkeys(self._branches()) if name != "HEAD"]
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return f"there are {', '.join(names[:10])}{more}" if names else "there are no branches, the history is empty"

    def _run(self, *command: str) -> bytes:
        import git

        try:
            output: bytes = self.repo.git.execute(
                ["git", *command], stdout_as_string=False, strip_newline_in_stdout=False
            )
        except git.GitCommandError as error:
            explain_ownership(error, self.location)
            raise RepositoryError(f"{self.location}: git {command[0]} failed: {said(error)}") from error
        return output

    def _cat_file(self) -> Any:
        if self._batch is None:
            self._batch = self.repo.git.cat_file("--batch", as_process=True, istream=subprocess.PIPE)
        return self._batch

    def _answer(self, batch: Any, blob_id: str) -> bytes:
        header = batch.stdout.readline().split()
        if len(header) != 3:
            found = b" ".join(header).decode("utf-8", "replace") or "no answer"
            raise RepositoryError(
                f"{self.location}: object {blob_id} cannot be read (git says: {found}); if this is a partial clone, "
                f"complete it with `git fetch --refetch --no-filter`"
            )
        content: bytes = batch.stdout.read(int(header[2]))
        batch.stdout.read(1)
        if len(content) != int(header[2]):
            raise RepositoryError(f"{self.location}: git ended in the middle of object {blob_id}")
        return content


def open_repository(path: Path, location: str) -> "git.Repo":
    """The repository at `path`, work tree or bare, prepared so that git never prompts and takes no locks.

    Raises:
        RepositoryError: git is missing, the path is, or it is no repository.
    """
    require_git()
    import git

    if not path.exists():
        raise RepositoryError(f"{location}: no such directory ({path})")
    try:
        repo = git.Repo(path)
    except git.InvalidGitRepositoryError:
        raise RepositoryError(f"{location}: not a git repository ({path}){_enclosing(path)}") from None
    except (git.NoSuchPathError, OSError, ValueError) as error:
        raise RepositoryError(f"{location}: cannot be opened as a git repository: {error}") from error
    repo.git = git.Git(repo.git_dir)  # Commands run inside the git directory: a work tree is neither needed nor read.
    repo.git.update_environment(**quiet_environment())
    return repo


def require_git() -> None:
    """
    Raises:
        RepositoryError: there is no git, or the environment redirects it.
    """
    if shutil.which("git") is None:
        raise RepositoryError("git is not installed, or not on PATH; install it (any version from 2.31 on)")
    redirected = [name for name in REDIRECTING_VARIABLES if os.environ.get(name)]
    if redirected:
        raise RepositoryError(
            f"the environment sets {', '.join(redirected)}, which redirects git; unset it and run again"
        )


def quiet_environment() -> dict[str, str]:
    """Variables that keep git from asking for passwords, taking locks and fetching missing objects one by one."""
    return {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C",
    }


def said(error: Any) -> str:
    """What git wrote to standard error, on one line."""
    text = error.stderr if isinstance(error.stderr, str) else (error.stderr or b"").decode("utf-8", "replace")
    lines = [line.strip() for line in text.removeprefix("\n  stderr: ").strip(" '\n").splitlines() if line.strip()]
    return "; ".join(lines[:4]) or f"exit code {error.status}"


def explain_ownership(error: Any, location: str) -> None:
    """
    Raises:
        RepositoryError: git refused because the repository belongs to another user.
    """
    if "dubious ownership" in said(error):
        raise RepositoryError(
            f"{location}: the repository belongs to another user, and git refuses to read it; if you trust it, run "
            f"`git config --global --add safe.directory {location}` as the user that runs embed-assets"
        ) from error


def refuse_shallow(source: GitSource) -> None:
    """
    Raises:
        RepositoryError: the clone holds only the newest commits, so nothing can be learnt from history.
    """
    if source.repo.git.rev_parse("--is-shallow-repository") == "true":
        raise RepositoryError(
            f"{source.location}: a shallow clone, whose history is cut off; complete it with "
            f"`git -C {source.location} fetch --unshallow`, or set `history = false` to learn from its code alone"
        )


def _enclosing(path: Path) -> str:
    for parent in path.resolve().parents:
        if (parent / ".git").exists():
            return f"; it lies inside one: give {parent} and `include` globs instead"
    return "; give a directory that `git init` or `git clone` made, a bare repository, or a URL"
