"""`serve` runs the live embedder, `embed` turns texts into vectors with what is live."""

import json
import sys
from typing import Annotated, Literal

import typer

from embed_assets.cli.options import AsJson, ConfigFile, DataDirectory
from embed_assets.settings_loading import load_settings


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; loopback unless you say otherwise.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port to listen on; 0 picks a free one.")] = None,
    data_dir: DataDirectory = None,
    config: ConfigFile = None,
) -> None:
    """Serve the promoted checkpoint (or the base model) over HTTP until stopped, and swap in what gets promoted."""
    from embed_assets.serving.serve import serve as serve_forever

    serve_forever(load_settings(), host=host, port=port)


def embed(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; one per line from standard input when none is given.")
    ] = None,
    kind: Annotated[str, typer.Option(help="query or passage: which prompt the model puts in front.")] = "query",
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    config: ConfigFile = None,
) -> None:
    """Embed texts with the running service, or with the live model here when none runs."""
    given = list(texts) if texts else [line for line in sys.stdin.read().splitlines() if line]
    if kind not in ("query", "passage") or not given:
        found = (
            f"--kind {kind!r}, allowed: query, passage"
            if given
            else "no text, neither as argument nor on standard input"
        )
        typer.echo(f"error: {found}", err=True)
        raise typer.Exit(2)
    model, vectors = _embed(given, "query" if kind == "query" else "passage")
    if as_json:
        typer.echo(json.dumps({"model": model, "embeddings": vectors}))
        return
    for text, vector in zip(given, vectors, strict=True):
        head = ", ".join(f"{value:+.4f}" for value in vector[:6])
        typer.echo(f"{text[:60]:60}  [{head}, ...]  {len(vector)} dimensions, {model}")


def _embed(texts: list[str], kind: Literal["query", "passage"]) -> tuple[str, list[list[float]]]:
    from embed_assets.checkpoints.live import live_model
    from embed_assets.serving.client import find_service
    from embed_assets.store import Store

    settings = load_settings()
    store = Store(settings.data_dir)
    service = find_service(store)
    if service is not None:
        vectors, model = service.embed(texts, kind)
        return model, vectors.tolist()
    from embed_assets.encoder.load import load_encoder
    from embed_assets.encoder.resolve import resolve

    live = live_model(store)
    path = live.path if live is not None else resolve(settings.model.name, settings.model.revision).path
    encoder = load_encoder(path)
    return (live.checkpoint_id if live is not None else settings.model.name), encoder.encode(texts, kind=kind).tolist()
