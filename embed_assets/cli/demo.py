"""`demo`: the whole graph on real code, with a live embedder that swaps while it runs. It forces no verdict."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from embed_assets.cli.night import EXIT_CODES
from embed_assets.cli.options import prepare_dagster, terminal_for_children
from embed_assets.files import StoreError, write_text
from embed_assets.serving.client import LiveEmbedder, find_service
from embed_assets.settings_loading import SETTINGS_FILE_VARIABLE, load_settings
from embed_assets.store import Store

PACKAGES = ("networkx", "polars")
"""Always installed with embed_assets, and documented well: real code without a download."""
SIGNATURE = "# Written by `embed-assets demo`, which deletes this folder when it runs again.\n"
SETTINGS = f"""\
{SIGNATURE}data_dir = "."

[[repositories]]
source = "package:networkx"

[[repositories]]
source = "package:polars"

# In-batch negatives alone train twice as fast: a demo should not take all night.
[pairs]
hard_negatives = 0

[serving]
port = 0
"""
MARKER = "embed_assets.toml"
SERVICE_SECONDS = 180.0
"""How long the service may take to load the base model on a slow machine."""


def demo(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="A folder of the demo's own; emptied first.")] = Path(
        "data/demo"
    ),
) -> None:
    """Learn from real code with the real MiniLM: recall before and after, verdict, promotion, hot swap."""
    root = _fresh(data_dir.expanduser().resolve())
    os.environ[SETTINGS_FILE_VARIABLE] = str(root / MARKER)
    os.environ["EMBED_ASSETS_DATA_DIR"] = str(root)
    os.environ.pop("DAGSTER_HOME", None)
    settings = load_settings()
    prepare_dagster(settings)
    store = Store(settings.data_dir)
    started = time.monotonic()
    _say(f"Learning from {' and '.join(PACKAGES)}, as installed here, into {root}")
    with _service(store) as service:
        from embed_assets.cli import before_and_after
        from embed_assets.night import run_night

        before = before_and_after.ask(service)
        _say(f"A live embedder answers at {service.url} with {before.model}")
        with terminal_for_children():
            outcome = run_night({})
        if outcome.name in ("failed", "cancelled"):
            _say(outcome.text)
            raise typer.Exit(EXIT_CODES.get(outcome.name, 1))
        for said in before_and_after.story(settings, outcome, service, before):
            _say(said)
    _say(
        f"{(time.monotonic() - started) / 60:.1f} minutes. Next: `make ui` opens the Dagster UI on this state; "
        "`embed-assets init PATH...` starts on your own repositories."
    )


def _fresh(root: Path) -> Path:
    """An empty folder for the demo; only a folder that an earlier demo wrote is emptied.

    Raises:
        StoreError: the folder holds something else.
    """
    if root.exists() and any(root.iterdir()):
        marker = root / MARKER
        if not marker.exists() or not marker.read_text(encoding="utf-8").startswith(SIGNATURE):
            raise StoreError(f"{root} is not empty and no demo wrote it; name another folder with --data-dir")
        if find_service(Store(root)) is not None:
            raise StoreError(f"a service still runs on {root}; stop it, or name another folder with --data-dir")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / MARKER, SETTINGS)
    return root


@contextmanager
def _service(store: Store) -> Iterator[LiveEmbedder]:
    """Runs `embed-assets serve` on a free port, and stops it in the end.

    Raises:
        StoreError: it ended, or did not become ready in time.
    """
    log = store.runs / "serve.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "embed_assets.cli", "serve"], stdout=output, stderr=output)
    try:
        yield _when_ready(store, process, log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _when_ready(store: Store, process: subprocess.Popen[bytes], log: Path) -> LiveEmbedder:
    deadline = time.monotonic() + SERVICE_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
            raise StoreError(f"the service ended with code {process.returncode}: {' '.join(said)}")
        service = find_service(store)
        if service is not None and service.ready():
            return service
        time.sleep(0.2)
    raise StoreError(f"the service was not ready after {SERVICE_SECONDS:.0f} s; see {log}")


def _say(text: str) -> None:
    typer.echo(f"\n{text}", err=False)
