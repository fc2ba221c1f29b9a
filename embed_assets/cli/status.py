"""`status`: what is live, how good it is, what the last night said."""

import json

import typer

from embed_assets.cli.options import AsJson, ConfigFile, DataDirectory
from embed_assets.settings_loading import load_settings


def status(as_json: AsJson = False, data_dir: DataDirectory = None, config: ConfigFile = None) -> None:
    """Say what is live and since when, its measured recall, the last verdict, and what the service serves."""
    from embed_assets.state import state_of

    settings = load_settings()
    state = state_of(settings)
    if as_json:
        typer.echo(json.dumps(state.to_json()))
    else:
        typer.echo(state.text)
