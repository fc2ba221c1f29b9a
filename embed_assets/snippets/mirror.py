"""Bare mirrors of repositories that are given by URL, cloned once and fetched each night.

Knows git's transport and the store's folder for mirrors; nothing of commits or languages.
"""

import os
import re
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from embed_assets.records import digest_of
from embed_assets.snippets.entries import RepositoryError
from embed_assets.snippets.git_source import open_repository, quiet_environment, require_git, said
from embed_assets.store import Store

if TYPE_CHECKING:
    import git

SAFE_OPTIONS = ("-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "gc.auto=0")
BRANCHES = "+refs/heads/*:refs/heads/*"
"""What is fetched, besides tags. A plain `--mirror` would bring every pull request of a forge as well."""


def open_mirror(url: str, name: str, store: Store) -> tuple["git.Repo", str]:
    """The up-to-date mirror of `url`, and a notice that is empty unless the fetch failed and an older state is read.

    Raises:
        RepositoryError: git is missing, or there is no mirror yet and it cannot be cloned.
    """
    require_git()
    path = mirror_path(url, name, store)
    if not path.exists():
        _clone(url, path)
        return open_repository(path, url), ""
    repo = open_repository(path, url)
    problem = _fetch(repo)
    if not problem:
        return repo, ""
    fetched_at = datetime.fromtimestamp((path / "fetched").stat().st_mtime, UTC)
    return (
        repo,
        f"{without_password(url)}: fetch failed ({problem}); reading the mirror of {fetched_at:%Y-%m-%d %H:%M} UTC",
    )


def mirror_path(url: str, name: str, store: Store) -> Path:
    """Where the mirror lies. The URL is part of the name, so that a changed URL is cloned anew."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "repository"
    return store.repositories / f"{plain}-{digest_of(url)[:8]}.git"


def without_password(url: str) -> str:
    return re.sub(r"(://)[^/@]+@", r"\1", url)


def _clone(url: str, path: Path) -> None:
    import git

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        clone = temporary / "clone"
        _git(temporary).execute(["git", *SAFE_OPTIONS, "clone", "--bare", "--quiet", "--", url, str(clone)])
        _git(clone).execute(["git", "config", "remote.origin.fetch", BRANCHES])
        (clone / "fetched").touch()
        os.rename(clone, path)
    except git.GitCommandError as error:
        raise RepositoryError(
            f"{without_password(url)}: cannot be cloned: {without_password(said(error))}; check the URL, the network, "
            f"and that this user's credentials work without a prompt (`git ls-remote URL`)"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fetch(repo: "git.Repo") -> str:
    """Brings the mirror up to date; says what went wrong, or nothing."""
    import git

    try:
        repo.git.execute(["git", *SAFE_OPTIONS, "fetch", "--quiet", "--prune", "--tags", "--force", "origin"])
        answer = repo.git.execute(["git", *SAFE_OPTIONS, "ls-remote", "--symref", "origin", "HEAD"])
    except git.GitCommandError as error:
        return without_password(said(error))
    head = re.match(r"ref: (refs/heads/\S+)\tHEAD", str(answer))
    if head:
        repo.git.execute(["git", "symbolic-ref", "HEAD", head[1]])
    (Path(repo.git_dir) / "fetched").touch()
    return ""


def _git(directory: Path) -> "git.Git":
    import git

    command = git.Git(directory)
    command.update_environment(**quiet_environment())
    return command
