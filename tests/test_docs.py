"""The reference names every command, asset, check and setting there is, and nothing that is not."""

import re
from pathlib import Path

import typer.main

from embed_assets.cli.app import app
from embed_assets.definitions import defs
from embed_assets.settings_file import commented_settings

DOCS = Path(__file__).resolve().parents[1] / "docs"
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return REFERENCE.split(f"## {title}\n")[1].split("\n## ")[0]


def first_column(title: str) -> set[str]:
    return set(re.findall(r"^\| `(?:embed-assets )?([a-z_]+)", section(title), flags=re.MULTILINE))


def test_every_command_is_documented() -> None:
    command = typer.main.get_command(app)
    assert first_column("Commands") == set(getattr(command, "commands"))  # noqa: B009 - typer's type does not say


def test_every_option_of_run_and_train_is_documented() -> None:
    commands = getattr(typer.main.get_command(app), "commands")  # noqa: B009
    for name in ("run", "train"):
        [line] = [line for line in section("Commands").splitlines() if line.startswith(f"| `embed-assets {name}`")]
        options = {option for parameter in commands[name].params for option in parameter.opts}
        options -= {"--json", "--data-dir", "--config"}
        assert {option for option in options if option not in line} == set()


def test_every_asset_check_schedule_and_sensor_is_documented() -> None:
    repository = defs.get_repository_def()
    assert first_column("Assets") == {key.to_user_string() for key in repository.asset_graph.materializable_asset_keys}
    assert first_column("Checks") == {key.name for key in repository.asset_graph.asset_check_keys}
    for definition in (*repository.schedule_defs, *repository.sensor_defs):
        assert f"`{definition.name}`" in REFERENCE


def test_the_settings_file_in_the_docs_is_the_one_that_init_writes() -> None:
    assert (DOCS / "settings.toml").read_text(encoding="utf-8") == commented_settings([])


def test_links_between_documents_lead_somewhere() -> None:
    root = DOCS.parent
    for document in (*DOCS.rglob("*.md"), *root.glob("*.md"), *(root / "deploy").glob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"
