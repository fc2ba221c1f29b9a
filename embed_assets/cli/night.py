"""`run`: tonight's graph, now. `ui`: the Dagster UI on the same state, with the schedule running."""

import json
import os
import sys
from typing import Annotated, Any

import typer

from embed_assets.cli.options import (
    AsJson,
    ConfigFile,
    DataDirectory,
    canonical_device,
    prepare_dagster,
    require_repositories,
    terminal_for_children,
    training_dials,
)
from embed_assets.settings_loading import load_settings

REFUSED = 3
EXIT_CODES = {"promoted": 0, "unchanged": 0, "refused": REFUSED, "cancelled": 130}


def run(
    model: Annotated[
        str | None, typer.Option(help="Base model: minilm, qodo, jina-v3, e5-large, a path or a name.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training pairs; derived when unset.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows that are each other's negatives; derived when unset.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate; derived when unset.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps (metal).")] = None,
    force: Annotated[bool, typer.Option(help="Train even when nothing changed, or nothing can be proved.")] = False,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    config: ConfigFile = None,
) -> None:
    """Run the whole graph now: snippets, pairs, adapter, gate, checkpoint, reload.

    Exit codes: 0 promoted or unchanged, 3 refused by the gate, others are errors.
    """
    dials: dict[str, Any] = {
        "model": model, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "device": canonical_device(device),
    }  # fmt: skip
    settings = load_settings(overrides=training_dials(**dials))
    require_repositories(settings)
    prepare_dagster(settings)
    from embed_assets.night import run_night

    with terminal_for_children():
        outcome = run_night({**dials, "force": force or None})
    if as_json:
        typer.echo(json.dumps(outcome.to_json()))
    else:
        typer.echo(outcome.text)
    raise typer.Exit(EXIT_CODES.get(outcome.name, 1))


def ui(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the UI.")] = 3000,
    host: Annotated[
        str, typer.Option(help="Address of the UI; it has no login, so keep it on this machine.")
    ] = "127.0.0.1",
    data_dir: DataDirectory = None,
    config: ConfigFile = None,
) -> None:
    """Open the Dagster UI on this data directory, with the daemon that runs schedule and alerts."""
    prepare_dagster(load_settings())
    arguments = ["dev", "-m", "embed_assets.definitions", "-h", host, "-p", str(port)]
    os.execv(sys.executable, [sys.executable, "-m", "dagster", *arguments])
