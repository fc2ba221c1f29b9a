"""The gate's checks judge the report on disk, once and without writing; a refusal at the door is no fault."""

import dagster as dg
import pytest

from embed_assets.definitions import defs
from embed_assets.defs.assets import ASSETS
from embed_assets.defs.checks import CHECKS, GATE
from embed_assets.defs.resources import Project
from embed_assets.evaluation import gate
from embed_assets.files import write_json
from embed_assets.night import outcome_of
from embed_assets.store import Store
from tests.evaluation.made_reports import good_report, one_slice, ranks_of
from tests.evaluation.made_store import FIRST, fitting, make_benchmark, set_benchmarks, write_candidate, write_report

FORGED = {"promote": True, "reasons": ["forged"]}


@pytest.fixture
def data(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A good candidate, not yet promoted."""
    monkeypatch.setenv("EMBED_ASSETS_DATA_DIR", str(store.root))
    set_benchmarks(store, make_benchmark("team", 20), make_benchmark("library", 20))
    write_candidate(store, FIRST, weights="better")
    write_report(store, FIRST, fitting(store, FIRST, good_report().slices))
    return store


def run(selection: dg.AssetSelection, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """A run of a part of the graph, as the UI starts it."""
    job = dg.define_asset_job("part", selection=selection)
    part = dg.Definitions(assets=ASSETS, asset_checks=CHECKS, jobs=[job], resources=defs.resources)
    return part.resolve_job_def("part").execute_in_process(instance=instance, raise_on_error=False)


def spoil(store: Store) -> None:
    """The candidate's report says that it is worse, and a forged verdict that it is not."""
    ranks = ranks_of(300, 0)
    parts = (one_slice("docstring", ranks, [rank + 5 for rank in ranks]), good_report().slices[-1])
    write_report(store, FIRST, fitting(store, FIRST, parts))
    write_json(store.candidate(FIRST) / "verdict.json", FORGED)


@pytest.mark.parametrize("chosen", [tuple(GATE), ("guard_not_regressed",)])
def test_the_gate_decides_once_and_writes_nothing(
    data: Store, chosen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    decided: list[str] = []
    monkeypatch.setattr(gate, "require_sound", lambda report: decided.append(report.candidate_id))
    keys = [dg.AssetCheckKey(dg.AssetKey("finetuned_adapter"), name) for name in chosen]
    with dg.instance_for_test() as instance:
        result = run(dg.AssetSelection.checks(*keys), instance)
    evaluations = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert result.success
    assert set(evaluations) == set(chosen)
    assert all(each.passed and each.blocking for each in evaluations.values())
    assert decided == [FIRST]
    assert not (data.candidate(FIRST) / "verdict.json").exists()


def test_every_check_of_the_gate_is_told_although_one_of_them_blocks(data: Store) -> None:
    spoil(data)
    with dg.instance_for_test() as instance:
        result = run(dg.AssetSelection.checks_for_assets("finetuned_adapter"), instance)
        outcome = outcome_of(instance, result)
    assert {each.check_name: each.passed for each in result.get_asset_check_evaluations()} == {
        "recall_beats_live": False,
        "guard_not_regressed": True,
        "not_trained_on_the_test": True,
    }
    assert outcome.name == "refused"


def test_a_refusal_by_promotion_alone_is_a_refusal_and_not_a_failure(data: Store) -> None:
    spoil(data)
    with dg.instance_for_test() as instance:
        result = run(dg.AssetSelection.assets("checkpoint_latest"), instance)
        outcome = outcome_of(instance, result)
    assert (outcome.name, data.live_checkpoint()) == ("refused", None)
    assert outcome.reasons[0].startswith("checkpoint_latest: candidate")
    assert "gain -" in outcome.reasons[0]


def test_a_broken_step_is_a_failure_and_not_a_refusal(data: Store) -> None:
    (data.candidate(FIRST) / "report.json").write_text("{", encoding="utf-8")
    with dg.instance_for_test() as instance:
        outcome = outcome_of(instance, run(dg.AssetSelection.checks_for_assets("finetuned_adapter"), instance))
    assert outcome.name == "failed"
    assert "report.json is damaged" in outcome.reasons[0]


def test_the_resource_is_the_one_of_the_definitions() -> None:
    assert isinstance((defs.resources or {})["project"], Project)
