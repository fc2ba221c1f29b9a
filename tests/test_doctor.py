"""The doctor: every fault of a machine is found, named, and says what to do."""

from collections import namedtuple
from pathlib import Path

import pytest

from embed_assets import doctor
from embed_assets.doctor import UnhealthyError, examine, require_health
from embed_assets.settings import Settings
from embed_assets.settings_loading import load_settings
from tests.checkpoints.made_start import write_start


def settings(tmp_path: Path, text: str = "") -> Settings:
    file = tmp_path / "embed_assets.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file)


def level_of(found: Settings, name: str) -> tuple[str, str]:
    [finding] = [finding for finding in examine(found) if finding.name == name]
    return finding.level, finding.message


def test_a_sound_machine_has_no_errors(tmp_path: Path) -> None:
    assert {finding.level for finding in require_health(settings(tmp_path))} <= {"ok", "warning"}


def test_missing_git_is_an_error_that_stops_the_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnhealthyError, match="git: not found on PATH; install git"):
        require_health(settings(tmp_path))


def test_what_the_training_starts_from_is_looked_at_where_there_is_such(tmp_path: Path) -> None:
    assert "warm start" not in {finding.name for finding in examine(settings(tmp_path))}
    named = '[training]\nstart_from = "team"\n'
    level, message = level_of(settings(tmp_path, named), "warm start")
    assert level == "error" and f"{tmp_path / 'team'} does not exist" in message
    write_start(tmp_path / "team", learnt_until={})
    level, message = level_of(settings(tmp_path, named), "warm start")
    assert level == "ok" and message.startswith("the adapter of team for minilm, rank 16, in ")


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage(10, 10, 0))
    level, message = level_of(settings(tmp_path), "disk")
    assert level == "error"
    assert "0.0 GiB free" in message


def test_a_broken_grammar_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check_grammars", lambda: {"rust": "no module tree_sitter_rust"})
    level, message = level_of(settings(tmp_path), "grammars")
    assert (level, "rust: no module tree_sitter_rust" in message) == ("error", True)


def test_cuda_on_a_machine_without_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    level, message = level_of(settings(tmp_path, "[training]\ndevice = 'cuda'\n"), "device")
    assert level == "error"
    assert "training.device" in message


def test_an_unknown_model_is_an_error(tmp_path: Path) -> None:
    level, message = level_of(settings(tmp_path, "[model]\nname = 'no-such-model'\n"), "model")
    assert (level, "no-such-model" in message) == ("error", True)


def test_a_missing_repository_is_a_warning_and_no_readable_one_an_error(tmp_path: Path) -> None:
    missing = "[[repositories]]\nsource = 'nowhere'\n"
    level, message = level_of(settings(tmp_path, missing), "repositories")
    assert (level, str(tmp_path / "nowhere") in message) == ("error", True)
    there = "[[repositories]]\nsource = 'package:networkx'\n"
    assert level_of(settings(tmp_path, missing + there), "repositories")[0] == "warning"


def test_every_repository_that_cannot_be_read_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    tables = ("'notes'", "'package:no_such_package'", "'package:networkx'")
    level, message = level_of(
        settings(tmp_path, "".join(f"[[repositories]]\nsource = {source}\n" for source in tables)), "repositories"
    )
    assert level == "warning"
    assert "notes: " in message and "not a git repository" in message
    assert "no_such_package: " in message
    assert "networkx" not in message


def test_a_dagster_home_without_its_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    assert level_of(settings(tmp_path), "dagster home")[0] == "error"


@pytest.mark.parametrize(("gibibytes", "level"), [(9.0, "warning"), (9.6, "ok")])
def test_memory_must_hold_four_copies_of_the_model(
    gibibytes: float, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = namedtuple("memory", "available")
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory(int(gibibytes * doctor.GIBIBYTE)))
    found, message = level_of(settings(tmp_path, "[model]\nname = 'e5-large'\n"), "memory")
    assert found == level
    assert ("e5-large wants about 9.3 GiB" in message) == (level == "warning")
