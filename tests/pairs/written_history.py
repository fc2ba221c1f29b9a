"""Real git repositories, written in one go by `git fast-import`."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import git

from embed_assets.snippets.git_source import GitSource

ANN = "Ann <ann@example.org>"
START = 1_600_000_000
DAY = 86_400


class WrittenHistory:
    """Commits to write, oldest first. Each call gives the commit's mark; `write` creates the bare repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: list[bytes] = []
        self._marks = 0

    def commit(
        self,
        subject: str,
        files: Mapping[str, str | None],
        *,
        at: int | None = None,
        author: str = ANN,
        parents: tuple[int, ...] | None = None,
    ) -> int:
        """`None` as content deletes the file. The parent is the commit before unless `parents` says otherwise."""
        self._marks += 1
        when = START + self._marks * DAY if at is None else at
        chosen = ((self._marks - 1,) if self._marks > 1 else ()) if parents is None else parents
        message = subject.encode()
        lines = [
            b"commit refs/heads/main",
            b"mark :%d" % self._marks,
            f"author {author} {when} +0000".encode(),
            f"committer {author} {when} +0000".encode(),
            b"data %d" % len(message),
            message,
        ]
        if chosen:
            lines.append(b"from :%d" % chosen[0])
            lines += [b"merge :%d" % parent for parent in chosen[1:]]
        for path, content in files.items():
            if content is None:
                lines.append(f"D {path}".encode())
            else:
                encoded = content.encode()
                lines += [f"M 100644 inline {path}".encode(), b"data %d" % len(encoded), encoded]
        self._stream.append(b"\n".join(lines) + b"\n")
        return self._marks

    def write(self) -> Path:
        """May be called again after more commits: the repository then goes on."""
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.path)], check=True)
        subprocess.run(
            ["git", "-C", str(self.path), "fast-import", "--quiet", "--force"], input=b"".join(self._stream), check=True
        )
        return self.path

    def commit_ids(self) -> list[str]:
        """Of what was written, oldest first: the commit of a mark stands one place before it."""
        command = ["git", "-C", str(self.path), "rev-list", "--reverse", "main"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    def source(self) -> GitSource:
        self.write()
        return GitSource(name="shop", location=str(self.path), repo=git.Repo(self.path))


def function(name: str, *body: str, doc: str = "") -> str:
    """A Python function; the body's lines are statements."""
    lines = [f"def {name}(value, other):"]
    lines += [f'    """{doc}"""'] if doc else []
    return "\n".join([*lines, *(f"    {line}" for line in body), "    return value"]) + "\n\n\n"
