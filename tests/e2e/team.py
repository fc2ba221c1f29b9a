"""A team's folder with settings, data and service, driven as people and Dagster drive it: by commands in processes."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embed_assets.serving.client import LiveEmbedder, find_service
from embed_assets.store import Store

PROJECT = Path(__file__).resolve().parents[2]
SHARED_SUFFIXES = (".safetensors", ".parquet")
"""Files that are replaced and never written in place: a copy of the folder may link them."""


@dataclass(frozen=True)
class Team:
    """One folder, as `embed-assets init` begins one."""

    root: Path

    @property
    def store(self) -> Store:
        return Store(self.root / "data")

    @property
    def live_id(self) -> str:
        live = self.store.live_checkpoint()
        return live.name if live is not None else "base"

    @property
    def candidate_id(self) -> str:
        return self.store.latest_candidate.resolve().name

    def configure(self, repositories: Sequence[tuple[Path, str]], *, more: str = "") -> None:
        """Writes the settings: repositories by path and branch, and further TOML."""
        tables = [
            f'[[repositories]]\nsource = "{path}"\nname = "{path.name}"\nbranch = "{branch}"\nhistory = true\n'
            for path, branch in repositories
        ]
        (self.root / "embed_assets.toml").write_text("\n".join([*tables, more]), encoding="utf-8")

    def environment(self, **more: str) -> dict[str, str]:
        """What a process of this team sees; nothing of the machine's own settings."""
        own = {
            name: value
            for name, value in os.environ.items()
            if name != "DAGSTER_HOME" and not name.startswith("EMBED_ASSETS_")
        }
        return {
            **own,
            "COLUMNS": "200",
            "EMBED_ASSETS_CONFIG": str(self.root / "embed_assets.toml"),
            "EMBED_ASSETS_SERVING__PORT": "0",
            **more,
        }

    def run(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """`embed-assets ARGUMENTS`, to its end."""
        return self._finish([sys.executable, "-m", "embed_assets.cli", *arguments], more)

    def dagster(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`dagster ARGUMENTS` on this team's instance, to its end."""
        return self._finish(self._dagster(arguments), {"DAGSTER_HOME": str(self.dagster_home())})

    def dagster_home(self) -> Path:
        """Dagster's home, made as the command line makes it."""
        home = self.store.dagster_home
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "dagster.yaml").exists():
            shutil.copyfile(PROJECT / "dagster.yaml", home / "dagster.yaml")
        return home

    def python(self, code: str) -> "subprocess.CompletedProcess[str]":
        """A program of the team's own, on the same instance."""
        return self._finish([sys.executable, "-c", code], {"DAGSTER_HOME": str(self.dagster_home())})

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """`embed-assets ARGUMENTS`, still running."""
        return self._start([sys.executable, "-m", "embed_assets.cli", *arguments], {})

    def start_dagster(self, *arguments: str) -> "subprocess.Popen[str]":
        """`dagster ARGUMENTS`, still running."""
        return self._start(self._dagster(arguments), {"DAGSTER_HOME": str(self.dagster_home())})

    def _dagster(self, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "dagster", *arguments, "-m", "embed_assets.definitions"]

    def _start(self, command: list[str], more: dict[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def _finish(self, command: list[str], more: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=self.root, env=self.environment(**more), capture_output=True, text=True, timeout=540,
            check=False,
        )  # fmt: skip

    @contextmanager
    def serving(self) -> Iterator[LiveEmbedder]:
        """`embed-assets serve`, ready; stopped at the end."""
        process = self.start("serve")
        try:
            deadline = time.monotonic() + 300
            service = find_service(self.store)
            while service is None or not service.ready():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.1)
                service = find_service(self.store)
            yield service
        finally:
            process.terminate()
            process.communicate(timeout=300)

    def copy(self, root: Path) -> "Team":
        """The same folder elsewhere, to do damage to. Repositories are named by absolute path, and shared."""
        shutil.copytree(self.root, root, symlinks=True, copy_function=_copy)
        return Team(root)


def _copy(source: str, target: str) -> str:
    if source.endswith(SHARED_SUFFIXES):
        os.link(source, target)
        return target
    return str(shutil.copy2(source, target))
