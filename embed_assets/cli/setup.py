"""`init` writes the settings file, `doctor` looks at the machine."""

import json
from pathlib import Path
from typing import Annotated

import typer

from embed_assets.cli.options import AsJson, ConfigFile, DataDirectory
from embed_assets.files import write_text
from embed_assets.settings import is_local_path
from embed_assets.settings_file import commented_settings
from embed_assets.settings_loading import DEFAULT_FILE, load_settings


def init(
    repositories: Annotated[
        list[str] | None,
        typer.Argument(help="Repositories: paths, URLs, or package:NAME. Default: the one you stand in."),
    ] = None,
    file: Annotated[Path, typer.Option(help="Where to write.")] = Path(DEFAULT_FILE),
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Write a commented embed_assets.toml that names every setting, its meaning and its default."""
    if file.exists() and not overwrite:
        typer.echo(f"error: {file} exists already; --overwrite replaces it", err=True)
        raise typer.Exit(2)
    sources = repositories or (["."] if Path(".git").exists() else [])
    for source in sources:
        if is_local_path(source) and not Path(source).expanduser().exists():
            typer.echo(f"warning: {source} does not exist here", err=True)
    write_text(file, commented_settings(sources))
    typer.echo(
        f"wrote {file}" + ("" if sources else "; name at least one repository in it") + "; next: embed-assets doctor"
    )


def doctor(
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
    config: ConfigFile = None,
) -> None:
    """Check git, grammars, device, memory, disk, the base model and Dagster's home, and say what to do."""
    from embed_assets.doctor import examine

    findings = examine(load_settings())
    if as_json:
        typer.echo(json.dumps([{"name": f.name, "level": f.level, "message": f.message} for f in findings]))
    else:
        for finding in findings:
            typer.echo(finding.line)
    raise typer.Exit(1 if any(finding.level == "error" for finding in findings) else 0)
