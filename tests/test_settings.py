"""Settings: three sources in one order, and every mistake one line that names key, value and what is allowed."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from embed_assets.settings import PairsSettings, RepositorySettings, Section, Settings, derived_name, is_local_path
from embed_assets.settings_file import commented_settings, field_docs
from embed_assets.settings_loading import SettingsError, load_settings, setting_keys


def write(folder: Path, text: str) -> Path:
    file = folder / "embed_assets.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_every_value_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.repositories == ()
    assert settings.data_dir == tmp_path / "data"
    assert settings.schedule.cron == "0 2 * * *"


def test_environment_overrides_the_file_and_overrides_override_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "[training]\nepochs = 3\nseed = 7\n")
    monkeypatch.setenv("EMBED_ASSETS_TRAINING__EPOCHS", "5")
    assert load_settings(file).training.epochs == 5
    overridden = load_settings(file, {"training.epochs": 9, "training.batch_size": None}).training
    assert (overridden.epochs, overridden.seed, overridden.batch_size) == (9, 7, None)


def test_a_bad_value_is_named_with_the_place_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "embed_assets.toml"
    file.write_text("[training]\nepochs = 0\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=re.escape(f"training.epochs = 0 in {file}; allowed")):
        load_settings(file)
    monkeypatch.setenv("EMBED_ASSETS_TRAINING__EPOCHS", "-1")
    with pytest.raises(SettingsError, match=r"training\.epochs = '-1' in EMBED_ASSETS_TRAINING__EPOCHS; allowed"):
        load_settings(file)
    with pytest.raises(SettingsError, match=r"training\.epochs = -2 of this run; allowed"):
        load_settings(file, {"training.epochs": -2})


def test_repositories_come_from_the_environment_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBED_ASSETS_REPOSITORIES", json.dumps([{"source": "package:networkx"}]))
    assert [repository.name for repository in load_settings().repositories] == ["networkx"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("speed = 1", ("unknown setting speed = 1", "allowed here: alerts, data_dir")),
        ("[training]\nepoch = 3", ("unknown setting training.epoch = 3", "epochs")),
        ("[training]\nepochs = 0", ("training.epochs = 0", "greater than or equal to 1")),
        ("[training]\nepochs = 'two'", ("training.epochs = 'two'", "valid integer")),
        ("[training]\ndevice = 'tpu'", ("training.device = 'tpu'", "'auto', 'cpu', 'cuda' or 'mps'")),
        ("[schedule]\ntime_zone = 'Mars'", ("schedule.time_zone = 'Mars'", "IANA")),
        ("[schedule]\ncron = '@daily'", ("schedule.cron = '@daily'", "five cron fields")),
        ("[[repositories]]\nsource = 'a'\nurl = 'b'", ("unknown setting repositories.0.url", "source")),
        ("[[repositories]]\nname = 'a'", ("repositories.0.source", "required")),
        ("[[repositories]]\nsource = 'x/a'\n[[repositories]]\nsource = 'y/a.git'", ("two repositories", "'a'")),
        ("= 3", ("cannot be read", "line 1")),
    ],
)
def test_a_mistake_is_one_line_naming_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, named: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    for part in named:
        assert part in message


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("EMBED_ASSETS_TRAINING__EPOCHZ", "2", "nearest are EMBED_ASSETS_TRAINING__EPOCHS"),
        ("EMBED_ASSETS_TRAINING__EPOCHS", "many", "training.epochs = 'many'"),
        ("EMBED_ASSETS_REPOSITORIES", "shop", "written as JSON"),
    ],
)
def test_a_mistake_in_the_environment_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=named):
        load_settings()


def test_a_named_file_that_is_missing_names_init(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="embed-assets init"):
        load_settings(tmp_path / "none.toml")


def test_relative_paths_count_from_the_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    text = "data_dir = 'state'\n[pairs]\nqueries_file = 'q.jsonl'\n"
    text += "external_sets = ['cosqa', '/srv/own']\nguard_set = 'guard'\n[training]\nstart_from = '../team'\n"
    text += "[[repositories]]\nsource = '.'\nissues = 'i.jsonl'\n"
    file = write(project, text)
    monkeypatch.chdir(tmp_path)
    settings = load_settings(file)
    assert settings.data_dir == project / "state"
    assert settings.pairs.queries_file == project / "q.jsonl"
    assert settings.pairs.external_sets == (project / "cosqa", Path("/srv/own"))
    assert settings.pairs.guard_set == project / "guard"
    assert settings.training.start_from == tmp_path / "team"
    assert settings.repositories[0].source == str(project)
    assert settings.repositories[0].issues == project / "i.jsonl"


@pytest.mark.parametrize(
    ("source", "name", "local"),
    [
        ("https://host/team/shop.git", "shop", False),
        ("git@host:team/shop.git", "shop", False),
        ("file:///srv/shop", "shop", False),
        ("package:networkx", "networkx", False),
        ("/srv/shop.git", "shop", True),
        ("./a:b", "b", True),
        ("~/My Shop", "My-Shop", True),
    ],
)
def test_a_repository_is_named_after_its_source(source: str, name: str, local: bool) -> None:
    assert derived_name(source) == name
    assert RepositorySettings(source=source).name == name
    assert is_local_path(source) is local


def test_the_commented_file_names_every_setting_and_changes_nothing(tmp_path: Path) -> None:
    text = commented_settings([])
    for key in setting_keys():
        assert f"{key.rsplit('.', 1)[-1]} =" in text or key == "repositories"
    assert load_settings(write(tmp_path, text)) == load_settings(write(tmp_path, ""))


def test_the_commented_file_stays_valid_with_every_default_switched_on(tmp_path: Path) -> None:
    lines = commented_settings(["."]).splitlines()
    switched = [line[2:] if line.startswith("# ") and " = " in line and "=2" not in line else line for line in lines]
    kept = [line for line in switched if not line.startswith("# [[")]
    document = tomllib.loads("\n".join(line for line in kept if not line.endswith(" =")))
    assert Settings(**document).pairs == PairsSettings()


def test_every_setting_says_what_it_means() -> None:
    sections = [kind.annotation for kind in Settings.model_fields.values()]
    for section in (RepositorySettings, *sections):
        if isinstance(section, type) and issubclass(section, Section):
            assert all(field_docs(section).values()), section
