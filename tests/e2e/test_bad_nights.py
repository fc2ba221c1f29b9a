"""Nights that go wrong, with a tiny model: each says why, promotes nothing, leaves nothing half written, and passes."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import psutil
import pytest

from embed_assets.pairs.build import build_pairs
from embed_assets.settings_loading import load_settings
from embed_assets.snippets.collect import collect_snippets
from tests.e2e.repositories import commit_all, package_repository
from tests.e2e.team import Team
from tests.processes import wait_until_gone
from tests.tiny_models import build
from tests.webhook import Webhook

pytestmark = pytest.mark.slow

FEW_ARE_ENOUGH = "[gate]\nminimum_queries = 1"
"""The small repository of these tests may be judged, so that it is trained on."""
SETTINGS = (
    """
[model]
name = "{model}"

[pairs]
guard_queries = 200

[training]
batch_size = 8

[alerts]
webhook_url = "{url}"
"""
    + FEW_ARE_ENOUGH
)
FOREVER = ("--epochs", "1000")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("minilm", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package_repository(tmp_path_factory.mktemp("sources") / "code", "networkx", most_files=12)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, model: Path, code: Path, webhook: Webhook) -> Team:
    """A team whose code was read and whose pairs were built."""
    made = Team(tmp_path_factory.mktemp("team") / "prepared")
    made.root.mkdir()
    made.configure([(code, "")], more=SETTINGS.format(model=model, url=webhook.url))
    settings = load_settings(made.root / "embed_assets.toml")
    collect_snippets(settings, made.store)
    build_pairs(settings, made.store)
    return made


@pytest.fixture
def team(prepared: Team, tmp_path: Path, webhook: Webhook) -> Team:
    webhook.posted.clear()
    return prepared.copy(tmp_path / "team")


def training_process(team: Team, night: "subprocess.Popen[str]") -> psutil.Process:
    """The night's training process, once it has trained a few steps."""
    deadline = time.monotonic() + 500
    while time.monotonic() < deadline:
        assert night.poll() is None, night.communicate()
        curves = list(team.store.runs.glob("*/curve.jsonl"))
        if curves and len(curves[0].read_text(encoding="utf-8").splitlines()) > 3:
            for child in psutil.Process(night.pid).children(recursive=True):
                if "embed_assets.training" in command_of(child):
                    return child
        time.sleep(0.1)
    raise AssertionError("no training began")


def command_of(process: psutil.Process) -> list[str]:
    """Empty when it ended meanwhile, as git does after a moment."""
    try:
        return [str(part) for part in process.cmdline()]
    except psutil.NoSuchProcess:
        return []


def assert_nothing_left(team: Team, *processes: psutil.Process) -> None:
    wait_until_gone(*processes)
    assert team.live_id == "base"
    assert not team.store.candidates.exists() or list(team.store.candidates.iterdir()) == []


def test_a_killed_trainer_fails_the_night_is_told_once_and_the_next_night_goes_on(team: Team, webhook: Webhook) -> None:
    night = team.start("run", "--json", *FOREVER)
    trainer = training_process(team, night)
    trainer.kill()
    output, errors = night.communicate(timeout=500)
    assert night.returncode == 1, errors
    outcome = json.loads(output)
    assert outcome["outcome"] == "failed"
    assert outcome["reasons"][0].startswith("finetuned_adapter: the training process ended without a reason of its own")
    assert_nothing_left(team, trainer)
    [alert] = webhook.posted
    assert "the training process ended without a reason" in str(alert["error"])


def test_a_cancelled_night_takes_its_training_along(team: Team, webhook: Webhook) -> None:
    """By SIGTERM, which Dagster takes for the SIGINT of Ctrl-C."""
    night = team.start("run", "--json", *FOREVER)
    trainer = training_process(team, night)
    night.terminate()
    output, errors = night.communicate(timeout=500)
    assert night.returncode == 130, errors
    assert json.loads(output)["outcome"] == "cancelled"
    assert webhook.posted == []
    assert_nothing_left(team, trainer)


def test_a_night_cancelled_in_dagster_takes_its_training_along(team: Team) -> None:
    """A step of the multiprocess executor; a cancel in the UI is this interrupt."""
    config = team.root / "run.yaml"
    config.write_text("ops:\n  finetuned_adapter:\n    config:\n      epochs: 1000\n", encoding="utf-8")
    night = team.start_dagster("job", "execute", "-j", "nightly", "-c", str(config))
    trainer = training_process(team, night)
    steps = psutil.Process(night.pid).children(recursive=True)
    night.send_signal(signal.SIGINT)
    night.communicate(timeout=500)
    assert_nothing_left(team, trainer, *steps)
    with dg.DagsterInstance.from_config(str(team.store.dagster_home)) as instance:
        [run] = instance.get_runs()
    assert run.status in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE)


def test_a_killed_night_takes_its_training_along_is_told_by_the_next_one_and_holds_nobody_up(
    team: Team, webhook: Webhook
) -> None:
    """The dead night held the training's only slot; nobody but the next night is there to free it."""
    night = team.start("run", *FOREVER)
    trainer = training_process(team, night)
    night.kill()
    night.communicate(timeout=500)
    assert_nothing_left(team, trainer)
    assert webhook.posted == []
    done = team.run("run", "--json", "--epochs", "1")
    assert json.loads(done.stdout)["outcome"] == "refused", done.stderr
    of_the_dead, of_this = webhook.posted
    assert of_the_dead["error"] == "the process that ran it died"
    assert of_this["run_id"] == json.loads(done.stdout)["run_id"] != of_the_dead["run_id"]


def test_a_night_that_cannot_learn_says_why_in_one_line_and_is_told_once(
    team: Team, tmp_path: Path, model: Path, webhook: Webhook
) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "code.py").write_text("def run(x):\n    return x\n", encoding="utf-8")
    commit_all(tmp_path / "bare", "Add code")
    team.configure([(tmp_path / "bare", "")], more=SETTINGS.format(model=model, url=webhook.url))
    done = team.run("run")
    assert done.returncode == 1
    said = "contrastive_pairs: no training pair in 1 functions, 0 of them documented"
    assert done.stdout.splitlines()[:1] == ["failed"]
    assert done.stdout.splitlines()[1].startswith(f"- {said}")
    [alert] = webhook.posted
    assert str(alert["error"]).startswith(said)


def test_a_repository_too_small_to_be_judged_is_not_trained_on_and_says_so(
    team: Team, model: Path, code: Path, webhook: Webhook
) -> None:
    team.configure([(code, "")], more=SETTINGS.format(model=model, url=webhook.url).replace(FEW_ARE_ENOUGH, ""))
    done = team.run("run")
    outcome, reason = done.stdout.splitlines()
    assert (done.returncode, outcome) == (0, "unchanged"), done.stderr
    assert reason.startswith("- not trained: 0 commit and ")
    assert "the gate asks for 30 together" in reason
    assert not team.store.candidates.exists()
    assert webhook.posted == []


def test_an_alert_that_reaches_nobody_does_not_change_the_outcome(team: Team, model: Path, code: Path) -> None:
    team.configure([(code / "nowhere", "")], more=SETTINGS.format(model=model, url="http://127.0.0.1:9/"))
    done = team.run("run", "--json")
    outcome = json.loads(done.stdout)
    assert (done.returncode, outcome["outcome"]) == (1, "failed")
    assert "no such directory" in outcome["reasons"][0]
    assert "the webhook cannot be reached" in outcome["untold"]


def test_a_full_disk_is_one_line_and_leaves_nothing(team: Team, code: Path, tmp_path: Path) -> None:
    """No file may grow beyond 64 KiB here, as on a disk that is nearly full."""
    lines = [{"query": f"find the {name} path", "positive": f"def {name}(): ..."} for name in ("short", "long") * 9]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    command = ["train", "--pairs", str(tmp_path / "pairs.jsonl"), "--output-dir", str(tmp_path / "trained")]
    done = subprocess.run(
        [sys.executable, "-m", "embed_assets.cli", *command, "--epochs", "1"],
        cwd=team.root, env=team.environment(), capture_output=True, text=True, check=False, timeout=500,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536)),
    )  # fmt: skip
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"{tmp_path / 'trained'} cannot be written, there is no room for it" in line
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl", "team"]


def test_a_corrupt_pairs_file_is_named(team: Team, tmp_path: Path) -> None:
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1 and no more")
    done = team.run("train", "--pairs", str(tmp_path / "pairs.parquet"), "--output-dir", str(tmp_path / "trained"))
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith(f"error: pairs file {tmp_path / 'pairs.parquet'}")
    assert not (tmp_path / "trained").exists()
