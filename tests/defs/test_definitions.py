"""What Dagster loads: the five assets, their checks, the nightly job and schedule, without torch in memory."""

import itertools
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from embed_assets.definitions import defs
from embed_assets.defs.assets import TrainingOverrides
from embed_assets.defs.schedules import nightly_schedule
from embed_assets.settings import ScheduleSettings

SPINE = ["code_snippets", "contrastive_pairs", "finetuned_adapter", "checkpoint_latest", "live_embedder_reload"]
GATE = {"recall_beats_live", "guard_not_regressed", "not_trained_on_the_test"}


def test_definitions_load_without_torch() -> None:
    heavy = "'torch', 'transformers', 'peft', 'sentence_transformers', 'matplotlib'"
    code = f"import sys, embed_assets.definitions; print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_spine_is_one_group_in_one_line() -> None:
    graph = defs.get_repository_def().asset_graph
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == set(SPINE)
    for upstream, downstream in itertools.pairwise(SPINE):
        assert graph.get(dg.AssetKey(downstream)).parent_keys == {dg.AssetKey(upstream)}
    for name in SPINE:
        node = graph.get(dg.AssetKey(name))
        assert node.group_name == "embed_assets"
        assert node.owners
        assert node.kinds
        assert node.description


def test_the_gate_blocks_what_comes_after_the_adapter() -> None:
    graph = defs.get_repository_def().asset_graph
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == GATE | {"no_leakage"}


def test_the_schedule_runs_daily_at_two_in_the_teams_zone() -> None:
    schedule = nightly_schedule(ScheduleSettings(time_zone="Europe/Berlin"))
    assert schedule.cron_schedule == "0 2 * * *"
    assert schedule.execution_timezone == "Europe/Berlin"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert nightly_schedule(ScheduleSettings(enabled=False)).default_status is dg.DefaultScheduleStatus.STOPPED


def test_one_training_runs_at_a_time() -> None:
    asset = defs.get_assets_def("finetuned_adapter")
    assert asset.op.pool == "training"


@pytest.mark.parametrize("dial", ["model", "epochs", "batch_size", "learning_rate", "device"])
def test_the_launchpad_offers_every_dial(dial: str) -> None:
    assert dial in TrainingOverrides.model_fields
    assert TrainingOverrides().overrides().keys() >= {"model.name", "training.epochs"}


def test_a_base_model_that_a_run_asks_for_is_looked_for_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBED_ASSETS_DATA_DIR", str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("nightly").execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config={"ops": {"finetuned_adapter": {"config": {"model": "nosuch/model"}}}},
        )
    assert not result.success
    failed = [event for event in result.all_events if event.is_step_failure]
    assert [event.step_key for event in failed] == ["code_snippets.doctor"]
    assert "nosuch/model" in failed[0].step_failure_data.error_display_string
    assert not (tmp_path / "snippets").exists()
