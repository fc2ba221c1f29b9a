"""The tree of commands, and how a mistake reads: one line, never a traceback of our own errors."""

import sys
from typing import Annotated

import typer

from embed_assets import __version__
from embed_assets.cli import benchmark, demo, model, night, service, setup, status
from embed_assets.cli.options import ConfigFile, DataDirectory
from embed_assets.settings_loading import SettingsError

app = typer.Typer(
    name="embed-assets",
    help="Fine-tunes a code-embedding model every night on your own git repositories, and proves that it got better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(setup.init)
app.command("doctor")(setup.doctor)
app.command("demo")(demo.demo)
app.command("run")(night.run)
app.command("ui")(night.ui)
app.command("status")(status.status)
app.command("train")(model.train)
app.command("evaluate")(model.evaluate)
app.command("export")(benchmark.export)
app.command("promote")(model.promote)
app.command("rollback")(model.rollback)
app.command("serve")(service.serve)
app.command("embed")(service.embed)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"embed-assets {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    data_dir: DataDirectory = None,
    config: ConfigFile = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command line. Errors of embed_assets are one line on stderr; any other keeps its traceback."""
    try:
        app()
    except SettingsError as error:
        _fail(error, code=2)
    except Exception as error:
        if not type(error).__module__.startswith("embed_assets."):
            raise
        _fail(error, code=1)


def _fail(error: Exception, *, code: int) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(code)
