"""A worse candidate, trained on shuffled positives, stays out on every way in, and people are told once."""

import json
import re
import shutil
from pathlib import Path

import dagster as dg
import pytest

from embed_assets.checkpoints.manifest import read_manifest, write_manifest
from embed_assets.defs.resources import Project
from embed_assets.defs.sensors import SENSORS
from embed_assets.files import read_json
from tests.e2e.conftest import Night
from tests.e2e.team import Team
from tests.webhook import Webhook

pytestmark = pytest.mark.slow

WITHOUT_CHECKS = """
import dagster as dg
from embed_assets.definitions import defs
from embed_assets.defs.assets import ASSETS

if __name__ == "__main__":
    selected = dg.AssetSelection.assets("finetuned_adapter", "checkpoint_latest", "live_embedder_reload")
    job = dg.define_asset_job("unchecked", selection=selected.without_checks())
    unchecked = dg.Definitions(assets=ASSETS, jobs=[job], resources=defs.resources).resolve_job_def("unchecked")
    with dg.DagsterInstance.get() as instance:
        result = unchecked.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.get_asset_check_evaluations()
    assert [event.step_key for event in result.get_step_failure_events()] == ["checkpoint_latest"]
    print(result.failure_data_for_node("checkpoint_latest").user_failure_data.description)
"""
"""What a person does who selects the assets in the UI and leaves the checks out."""


def judged_no_more(team: Team) -> Team:
    """As after a crash between the evaluation and its verdict: the next run evaluates again instead of training."""
    (team.store.candidate(team.candidate_id) / "verdict.json").unlink()
    return team


def test_the_whole_run_refuses_it(good: Night, worse: Night) -> None:
    assert worse.done.returncode == 3, worse.done.stderr
    outcome = json.loads(worse.done.stdout)
    assert outcome["outcome"] == "refused"
    assert any(reason.startswith("finetuned_adapter.recall_beats_live: ") for reason in outcome["reasons"])
    assert worse.team.candidate_id != good.team.candidate_id
    verdict = read_json(worse.team.store.candidate(worse.team.candidate_id) / "verdict.json")
    assert verdict["promote"] is False
    assert verdict["figures"]["gain"] < 0
    assert_nothing_moved(worse.team, good)
    assert worse.served_before == worse.served_after
    assert worse.served_after.endswith(f"@{good.team.live_id}")


def test_promote_refuses_it(good: Night, worse: Night, tmp_path: Path) -> None:
    team = worse.team.copy(tmp_path / "team")
    done = team.run("promote")
    assert done.returncode == 3
    assert "gain -" in done.stderr
    assert_nothing_moved(team, good)


def test_checkpoint_latest_alone_refuses_it(good: Night, worse: Night, tmp_path: Path) -> None:
    team = worse.team.copy(tmp_path / "team")
    done = team.dagster("asset", "materialize", "--select", "checkpoint_latest")
    assert done.returncode != 0
    assert f"candidate {team.candidate_id} is not promoted" in done.stdout + done.stderr
    assert_nothing_moved(team, good)


def test_it_is_refused_when_checks_are_skipped(good: Night, worse: Night, tmp_path: Path) -> None:
    team = judged_no_more(worse.team.copy(tmp_path / "team"))
    done = team.python(WITHOUT_CHECKS)
    assert done.returncode == 0, done.stderr
    assert f"candidate {team.candidate_id} is not promoted" in done.stdout
    assert_nothing_moved(team, good)


def test_fresh_processes_refuse_it_and_the_sensors_tell_of_it_once(
    good: Night, worse: Night, tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The multiprocess executor, as the schedule runs it; nobody but the sensors is there to tell."""
    team = judged_no_more(worse.team.copy(tmp_path / "team"))
    monkeypatch.setenv("EMBED_ASSETS_CONFIG", str(team.root / "embed_assets.toml"))
    told = len(webhook.posted)
    with dg.DagsterInstance.from_config(str(team.store.dagster_home)) as instance:
        cursors = tick(instance, {})
        done = team.dagster("job", "execute", "-j", "nightly")
        assert done.returncode != 0
        output = done.stdout + done.stderr
        assert len(set(re.findall(r"Launching subprocess for \W*(\w+)", output))) >= 5, output
        assert_nothing_moved(team, good)
        assert len(webhook.posted) == told
        for _ in range(3):
            cursors = tick(instance, cursors)
    [alert] = webhook.posted[told:]
    assert str(alert["failed_checks"]).count("finetuned_adapter.recall_beats_live: ") == 1


def test_the_command_line_told_of_it_once_and_the_sensors_add_nothing(
    worse: Night, webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [alert] = worse.told
    assert "recall_beats_live" in str(alert["text"])
    told = len(webhook.posted)
    team = worse.team.copy(tmp_path / "team")
    monkeypatch.setenv("EMBED_ASSETS_CONFIG", str(team.root / "embed_assets.toml"))
    with dg.instance_for_test() as empty:
        before_the_first_run = tick(empty, {})
    with dg.DagsterInstance.from_config(str(team.store.dagster_home)) as instance:
        tick(instance, tick(instance, before_the_first_run))
    assert len(webhook.posted) == told


def test_worse_weights_under_a_passing_report_are_refused(good: Night, worse: Night, tmp_path: Path) -> None:
    team = before_promotion(good, tmp_path / "team")
    weights = Path("model") / "model.safetensors"
    target = team.store.candidate(team.candidate_id) / weights
    target.unlink()
    shutil.copyfile(worse.team.store.candidate(worse.team.candidate_id) / weights, target)
    done = team.run("promote")
    assert done.returncode == 3
    assert "the model's files are not those that were evaluated" in done.stderr
    assert team.live_id == "base"
    done = team.dagster("asset", "materialize", "--select", "checkpoint_latest,live_embedder_reload")
    assert done.returncode != 0
    assert team.live_id == "base"


def test_a_report_against_another_live_model_is_stale(good: Night, tmp_path: Path) -> None:
    team = before_promotion(good, tmp_path / "team")
    other = team.store.checkpoint("20990101-000000-00000000")
    shutil.copytree(good.team.store.checkpoint(good.team.live_id), other)
    (other / "manifest.json").unlink()
    digest = read_manifest(good.team.store.checkpoint(good.team.live_id)).model_digest
    write_manifest(other, checkpoint_id=other.name, model_digest=digest, report_digest="")
    assert team.run("rollback", "--to", other.name).returncode == 0
    done = team.run("promote")
    assert done.returncode == 3
    assert f"it compares with live model base, live is {other.name} now" in done.stderr
    assert team.live_id == other.name


def test_the_same_candidate_untouched_is_promoted(good: Night, tmp_path: Path) -> None:
    """So that the two refusals before this one are about what was changed."""
    team = before_promotion(good, tmp_path / "team")
    done = team.run("promote")
    assert (done.returncode, team.live_id) == (0, good.team.live_id), done.stderr


def assert_nothing_moved(team: Team, good: Night) -> None:
    assert team.store.checkpoint_latest.readlink() == good.team.store.checkpoint_latest.readlink()
    assert team.store.history.read_text() == good.team.store.history.read_text()
    assert [path.name for path in team.store.checkpoints.iterdir()] == [good.team.live_id]


def before_promotion(good: Night, root: Path) -> Team:
    team = good.team.copy(root)
    shutil.rmtree(team.store.root / "models")
    return team


def tick(instance: dg.DagsterInstance, cursors: dict[str, str]) -> dict[str, str]:
    """One evaluation of each sensor by Dagster's own code, as the daemon makes it."""
    after = {}
    for sensor in SENSORS:
        context = dg.build_sensor_context(
            instance=instance, cursor=cursors.get(sensor.name), resources={"project": Project()}
        )
        with context:
            after[sensor.name] = str(sensor.evaluate_tick(context).cursor)
    return after
