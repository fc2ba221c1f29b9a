"""`export`: the held-out queries for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from embed_assets.cli.options import ConfigFile, DataDirectory
from embed_assets.files import StoreError
from embed_assets.settings_loading import load_settings
from embed_assets.store import Store


def export(
    folder: Annotated[Path, typer.Argument(help="A new folder for corpus.jsonl, queries.jsonl and qrels/test.tsv.")],
    source: Annotated[str, typer.Option(help="Only queries of this source: commit, docstring, issue ...")] = "",
    guard: Annotated[bool, typer.Option("--guard", help="The guard instead of the held-out queries.")] = False,
    data_dir: DataDirectory = None,
    config: ConfigFile = None,
) -> None:
    """Write the frozen benchmark in BEIR's format, as MTEB-style tools read it."""
    from embed_assets.evaluation.benchmark import export_beir, of_source, read_benchmark

    store = Store(load_settings().data_dir)
    wanted = store.guard_benchmark if guard else store.current_benchmark
    if not wanted.is_dir():
        raise StoreError(f"there is no benchmark at {wanted} yet; `embed-assets run` builds one from the repositories")
    benchmark = read_benchmark(wanted)
    chosen = of_source(benchmark, source) if source else benchmark
    export_beir(chosen, folder)
    typer.echo(f"wrote {folder}: {chosen.queries.height:,} queries on {chosen.corpus.height:,} documents")
