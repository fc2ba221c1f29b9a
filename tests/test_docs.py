"""The reference names every command, asset, check and setting there is, and nothing that is not."""

import re
from pathlib import Path

import typer.main

from embed_assets.cli.app import app
from embed_assets.definitions import defs
from embed_assets.models import CATALOGUE, LORA_TARGETS_BY_TYPE
from embed_assets.settings_file import commented_settings

DOCS = Path(__file__).resolve().parents[1] / "docs"
MODELS = (DOCS / "models.md").read_text(encoding="utf-8")
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


def test_the_documented_catalogue_is_the_one_in_the_code() -> None:
    """Column by column, row by row: a model or a value that changes in the code changes in docs/models.md."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in MODELS.splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    assert rows[0] == ["", *(f"`{alias}`" for alias in CATALOGUE)]
    documented = {name: dict(zip(CATALOGUE, cells, strict=True)) for name, *cells in rows[1:]}
    for alias, model in CATALOGUE.items():
        assert {name: cells[alias] for name, cells in documented.items()} == {
            "repository on the hub": model.repository,
            "revision": model.revision or "resolved, recorded",
            "architecture": model.model_type,
            "parameters": f"{model.parameters:,}",
            "dimension": str(model.dimension),
            "cut to": ", ".join(map(str, model.matryoshka_dimensions)) or "-",
            "pooling": model.pooling,
            "attention": "causal" if model.causal else "both ways",
            "query prompt": f"`{model.query_prompt}`" if model.query_prompt else "none",
            "passage prompt": f"`{model.passage_prompt}`" if model.passage_prompt else "none",
            "longest input, default": str(model.max_tokens),
            "longest input, limit": str(model.position_limit),
            "LoRA on": ", ".join(model.lora_targets),
            "but not on": ", ".join(model.lora_excluded) or "-",
            "licence of the weights": model.licence,
        }
        assert f"`{alias}` ({model.licence}" in MODELS or f"({model.licence}) and `{alias}`" in MODELS
        assert model.sha256 in MODELS and model.package in MODELS
    for model_type in LORA_TARGETS_BY_TYPE:
        assert model_type in MODELS


def test_the_settings_file_in_the_docs_is_the_one_that_init_writes() -> None:
    assert (DOCS / "settings.toml").read_text(encoding="utf-8") == commented_settings([])


def test_links_between_documents_lead_somewhere() -> None:
    root = DOCS.parent
    for document in (*DOCS.rglob("*.md"), *root.glob("*.md"), *(root / "deploy").glob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"
