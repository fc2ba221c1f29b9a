"""Real git repositories for tests, made with git itself, at fixed times."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@engine.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@engine.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}
FIRST_COMMIT = 1_700_000_000
"""Seconds since 1970; each further commit is a day later."""
DAY = 86_400


def run_git(directory: Path, *command: str, at: int = FIRST_COMMIT) -> str:
    dates = {"GIT_AUTHOR_DATE": f"{at} +0000", "GIT_COMMITTER_DATE": f"{at} +0000"}
    done = subprocess.run(
        ["git", *command],
        cwd=directory,
        env={**os.environ, **IDENTITY, **dates},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def make_repository(directory: Path, *commits: Mapping[str, str | bytes | None]) -> Path:
    """A repository whose commits write these files; None deletes one."""
    directory.mkdir(parents=True)
    run_git(directory, "init", "--quiet", "--initial-branch=main")
    for number, files in enumerate(commits):
        commit(directory, files, f"Commit {number}", at=FIRST_COMMIT + number * DAY)
    return directory


def commit(directory: Path, files: Mapping[str, str | bytes | None], message: str, *, at: int) -> str:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")
    run_git(directory, "add", "--all", at=at)
    run_git(directory, "commit", "--quiet", "--allow-empty", "-m", message, at=at)
    return run_git(directory, "rev-parse", "HEAD")
