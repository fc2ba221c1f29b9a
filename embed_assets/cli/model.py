"""`train`, `evaluate`, `promote` and `rollback`: the steps of a night one by one, by hand."""

import json
from pathlib import Path
from typing import Annotated

import typer

from embed_assets.cli.night import REFUSED
from embed_assets.cli.options import AsJson, ConfigFile, DataDirectory, canonical_device, training_dials
from embed_assets.settings_loading import load_settings
from embed_assets.store import Store


def train(
    model: Annotated[
        str | None, typer.Option(help="Base model: minilm, qodo, jina-v3, e5-large, a path or a name.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Pairs to train on, parquet or JSON lines; default: the data directory's.")
    ] = None,
    max_pairs: Annotated[int | None, typer.Option(help="At most so many training pairs.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pairs; derived when unset.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows that are each other's negatives; derived when unset.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate; derived when unset.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps (metal).")] = None,
    output_dir: Annotated[Path, typer.Option(help="A new folder for adapter, model and curve.")] = Path("trained"),
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    config: ConfigFile = None,
) -> None:
    """Train an adapter, without the graph: pairs in, a folder with adapter and model out. Nothing is promoted."""
    from embed_assets.training.standalone import train_to_directory

    dials = training_dials(
        model=model, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, device=canonical_device(device)
    )
    settings = load_settings(overrides={**dials, "pairs.max_pairs": max_pairs})
    summary = train_to_directory(settings, pairs or Store(settings.data_dir).pairs, output_dir)
    typer.echo(json.dumps(summary, default=str) if as_json else f"wrote {output_dir}")


def evaluate(
    candidate: Annotated[str | None, typer.Option(help="Candidate id; default: the latest.")] = None,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    config: ConfigFile = None,
) -> None:
    """Measure a candidate against base and live on the held-out queries, and say what the gate would do."""
    from embed_assets.evaluation.evaluate import evaluate_candidate
    from embed_assets.evaluation.gate import decide
    from embed_assets.evaluation.job import plan_evaluation
    from embed_assets.evaluation.table import recall_table

    settings = load_settings()
    store = Store(settings.data_dir)
    report = evaluate_candidate(plan_evaluation(settings, store, candidate))
    verdict = decide(report, settings.gate)
    if as_json:
        typer.echo(json.dumps({"report": report.to_json(), "promote": verdict.promote, "reasons": verdict.reasons}))
    else:
        typer.echo(recall_table(report))
        typer.echo("\n".join([f"verdict: {'promote' if verdict.promote else 'keep the live model'}", *verdict.reasons]))


def promote(
    candidate: Annotated[str | None, typer.Option(help="Candidate id; default: the latest.")] = None,
    data_dir: DataDirectory = None,
    config: ConfigFile = None,
) -> None:
    """Promote a candidate, if its report is fresh and the gate agrees. There is no way around the gate."""
    from embed_assets.checkpoints.promote import PromotionRefusedError
    from embed_assets.checkpoints.promote import promote as promote_candidate

    settings = load_settings()
    try:
        checkpoint = promote_candidate(Store(settings.data_dir), candidate, settings.gate)
    except PromotionRefusedError as refusal:
        typer.echo(f"refused: {refusal}", err=True)
        raise typer.Exit(REFUSED) from None
    typer.echo(f"promoted {checkpoint.checkpoint_id}")
    reload_service(Store(settings.data_dir), checkpoint.checkpoint_id)


def rollback(
    to: Annotated[str | None, typer.Option(help="Checkpoint id; default: the one before.")] = None,
    data_dir: DataDirectory = None,
    config: ConfigFile = None,
) -> None:
    """Point checkpoint-latest back at an earlier checkpoint, and have the running service swap it in."""
    from embed_assets.checkpoints.live import rollback as roll_back

    store = Store(load_settings().data_dir)
    checkpoint = roll_back(store, to)
    typer.echo(f"rolled back to {checkpoint.checkpoint_id}")
    reload_service(store, checkpoint.checkpoint_id)


def reload_service(store: Store, checkpoint_id: str) -> None:
    """Asks the running service, if there is one, to swap the checkpoint in."""
    from embed_assets.serving.client import find_service

    service = find_service(store)
    if service is None:
        typer.echo("no service is running; the next `embed-assets serve` serves it")
        return
    service.reload(checkpoint_id)
    typer.echo(f"{service.url} serves it now")
