"""The command line as a program sees it: exit codes, one-line errors, JSON, and a data directory that moves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embed_assets.settings_loading import load_settings


def embed_assets(
    *arguments: str, folder: Path, environment: dict[str, str] | None = None, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs the command line in `folder`, in a process of its own, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "embed_assets.cli", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **(environment or {})},
        input=given,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_run_without_a_repository_names_init(tmp_path: Path) -> None:
    done = embed_assets("run", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error: no repository is configured")
    assert "write the file with `embed-assets init`" in done.stderr
    assert embed_assets("init", folder=tmp_path).returncode == 0
    done = embed_assets("run", folder=tmp_path)
    assert done.returncode == 2
    assert "names none); name one in it, or write it anew: `embed-assets init PATH... --overwrite`" in done.stderr


def test_a_bad_setting_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "embed_assets.toml").write_text("[training]\nepochs = 0\n")
    done = embed_assets("status", folder=tmp_path)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert "training.epochs = 0" in line


def test_a_bad_override_of_one_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "embed_assets.toml").write_text("[[repositories]]\nsource = 'package:networkx'\n")
    for command in ("train", "run"):
        done = embed_assets(command, "--device", "tpu", folder=tmp_path)
        assert done.returncode == 2
        [line] = done.stderr.strip().splitlines()
        assert "training.device = 'tpu' of this run; allowed: 'auto', 'cpu', 'cuda' or 'mps'" in line


def test_an_unknown_command_and_an_unknown_option_exit_with_2(tmp_path: Path) -> None:
    assert embed_assets("learn", folder=tmp_path).returncode == 2
    assert embed_assets("run", "--epoch", "1", folder=tmp_path).returncode == 2


def test_a_port_that_there_is_not_is_refused(tmp_path: Path) -> None:
    """uvicorn would listen on what is left of the number in 16 bits."""
    for command in ("serve", "ui"):
        done = embed_assets(command, "--port", "99999999", folder=tmp_path)
        assert done.returncode == 2
        assert "65535" in done.stderr


def test_init_writes_a_file_that_loads_and_names_the_repository(tmp_path: Path) -> None:
    assert embed_assets("init", "../shop", "package:networkx", folder=tmp_path).returncode == 0
    settings = load_settings(tmp_path / "embed_assets.toml")
    assert [repository.name for repository in settings.repositories] == ["shop", "networkx"]
    again = embed_assets("init", folder=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert embed_assets("init", "--overwrite", folder=tmp_path).returncode == 0


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_data_directory_moves_all_state(tmp_path: Path, order: str) -> None:
    option = ["--data-dir", str(tmp_path / "elsewhere")]
    arguments = [*option, "status", "--json"] if order == "before" else ["status", "--json", *option]
    done = embed_assets(*arguments, folder=tmp_path)
    assert json.loads(done.stdout)["data_dir"] == str(tmp_path / "elsewhere")
    assert not (tmp_path / "data").exists()


def test_status_before_the_first_night_says_what_is_live(tmp_path: Path) -> None:
    state = json.loads(embed_assets("status", "--json", folder=tmp_path).stdout)
    assert state["live"]["id"] == "base"
    assert state["recall"] == {}
    assert "nothing is promoted yet" in embed_assets("status", folder=tmp_path).stdout


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("promote",), "no candidate was trained yet"),
        (("promote", "--candidate", "../../etc"), "is no id"),
        (("rollback",), "the base model is live"),
        (("rollback", "--to", "nothing"), "there is no checkpoint 'nothing'"),
        (("evaluate",), "no candidate"),
        (("export", "task"), "`embed-assets run` builds one"),
        (("train",), "pairs"),
    ],
)
def test_a_step_without_its_input_is_one_line(tmp_path: Path, command: tuple[str, ...], said: str) -> None:
    done = embed_assets(*command, folder=tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_embed_without_a_text_says_so(tmp_path: Path) -> None:
    done = embed_assets("embed", folder=tmp_path)
    assert done.returncode == 2
    assert "no text" in done.stderr
    assert "allowed: query, passage" in embed_assets("embed", "x", "--kind", "code", folder=tmp_path).stderr


def test_embed_without_a_service_uses_the_live_model_here(tmp_path: Path) -> None:
    done = embed_assets("embed", "--json", folder=tmp_path, given="retry webhooks\nretry failed webhooks\n")
    answer = json.loads(done.stdout)
    assert answer["model"] == "minilm"
    first, second = answer["embeddings"]
    assert len(first) == 384
    assert sum(a * b for a, b in zip(first, second, strict=True)) > 0.8


def test_doctor_says_what_it_found(tmp_path: Path) -> None:
    done = embed_assets("doctor", "--json", folder=tmp_path)
    levels = {finding["name"]: finding["level"] for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert levels["git"] == levels["grammars"] == levels["model"] == "ok"
    assert levels["repositories"] == "warning"


def test_doctor_fails_where_git_is_missing(tmp_path: Path) -> None:
    done = embed_assets("doctor", folder=tmp_path, environment={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "error    git: not found on PATH" in done.stdout


def test_demo_never_empties_a_folder_it_did_not_write(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    done = embed_assets("demo", "--data-dir", str(precious), folder=tmp_path)
    assert done.returncode == 1
    assert "no demo wrote it" in done.stderr
    assert (precious / "file").read_text() == "x"


def test_init_warns_of_a_path_that_is_not_there(tmp_path: Path) -> None:
    done = embed_assets("init", "/nowhere/shop", "package:networkx", folder=tmp_path)
    assert done.returncode == 0
    assert done.stderr.strip() == "warning: /nowhere/shop does not exist here"
