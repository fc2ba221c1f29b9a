"""Options that every command has, and what they move: they set the environment, so that child processes follow."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from embed_assets.settings import TERMINAL_VARIABLE, Settings
from embed_assets.settings_loading import SETTINGS_FILE_VARIABLE, SettingsError, settings_file
from embed_assets.store import Store

PROJECT_DAGSTER_FILES = (
    Path(__file__).resolve().parents[2] / "dagster.yaml",
    Path(__file__).resolve().parents[1] / "dagster.yaml",
)
"""The project's dagster.yaml: in a checkout, and inside an installed package."""


def _move_data(path: Path | None) -> Path | None:
    if path is not None:
        os.environ["EMBED_ASSETS_DATA_DIR"] = str(path.expanduser().resolve())
    return path


def _choose_file(path: Path | None) -> Path | None:
    if path is not None:
        os.environ[SETTINGS_FILE_VARIABLE] = str(path.expanduser().resolve())
    return path


DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Where all state lies (EMBED_ASSETS_DATA_DIR).", callback=_move_data, show_default=False
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="The settings file (EMBED_ASSETS_CONFIG).", callback=_choose_file, show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for programs.")]


def prepare_dagster(settings: Settings) -> Path:
    """Sets DAGSTER_HOME to the data directory's, with the project's dagster.yaml linked into it.

    A DAGSTER_HOME that is set already (production, with its own dagster.yaml) is left alone.

    Raises:
        SettingsError: the project's dagster.yaml is not where it belongs.
    """
    if os.environ.get("DAGSTER_HOME"):
        return Path(os.environ["DAGSTER_HOME"])
    home = Store(settings.data_dir).dagster_home
    source = next((file for file in PROJECT_DAGSTER_FILES if file.exists()), None)
    if source is None:
        raise SettingsError(f"dagster.yaml is missing at {PROJECT_DAGSTER_FILES[0]}; reinstall, or set DAGSTER_HOME")
    home.mkdir(parents=True, exist_ok=True)
    link = home / "dagster.yaml"
    if not (link.exists() and link.samefile(source)):
        temporary = home / f".dagster.yaml.{os.getpid()}"
        temporary.symlink_to(source)
        os.replace(temporary, link)
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["EMBED_ASSETS_DATA_DIR"] = str(settings.data_dir)
    file = settings_file()
    if file is not None:
        os.environ[SETTINGS_FILE_VARIABLE] = str(file)
    return home


def require_repositories(settings: Settings) -> None:
    """
    Raises:
        SettingsError: no repository is configured.
    """
    if not settings.repositories:
        file = settings_file()
        if file:
            todo = f"({file} names none); name one in it, or write it anew: `embed-assets init PATH... --overwrite`"
        else:
            todo = "(there is no embed_assets.toml here); write the file with `embed-assets init`"
        raise SettingsError(f"no repository is configured {todo}")


@contextmanager
def terminal_for_children() -> Iterator[None]:
    """Lets a child process draw its progress bar on this terminal although Dagster captures its output."""
    if sys.stderr.isatty():
        os.environ[TERMINAL_VARIABLE] = os.ttyname(sys.stderr.fileno())
    try:
        yield
    finally:
        os.environ.pop(TERMINAL_VARIABLE, None)


def training_dials(
    *,
    model: str | None,
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    device: str | None,
) -> dict[str, Any]:
    """The settings' keys that the flags of `run` and `train` override; None leaves a setting as it is."""
    return {
        "model.name": model,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.learning_rate": learning_rate,
        "training.device": device,
    }


def canonical_device(device: str | None) -> str | None:
    """`metal` is what people call `mps`."""
    return "mps" if device == "metal" else device
