"""Whichever sensor sees a bad run first, people are told of it once."""

import os
import signal

import dagster as dg
import pytest

from embed_assets.alerts import Alert, AlertError
from embed_assets.defs import sensors
from embed_assets.defs.abandoned import this_process
from embed_assets.defs.resources import Project
from embed_assets.defs.sensors import alert_on_failed_run, failed_checks, failed_steps, tell_of_run, was_interrupted


@dg.asset
def model() -> None:
    pass


@dg.asset_check(asset=model, blocking=True)
def better() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.ERROR, description="p = 0.4")


@dg.asset_check(asset=model)
def readable() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="shop is gone")


@dg.asset
def broken() -> None:
    raise dg.Failure(description="the disk is full")


@dg.asset
def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    raise AssertionError("the signal came too late")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> list[Alert]:
    monkeypatch.setenv("EMBED_ASSETS_DATA_DIR", str(tmp_path))
    alerts: list[Alert] = []

    def remember(alert: Alert, *_: object) -> bool:
        alerts.append(alert)
        return True

    monkeypatch.setattr(sensors, "send_alert", remember)
    return alerts


def test_a_failed_blocking_check_is_told_with_its_reason(told: list[Alert]) -> None:
    with dg.instance_for_test() as instance:
        result = dg.materialize([model, better], instance=instance, raise_on_error=False)
        assert not result.success
        assert tell_of_run(instance, result.dagster_run, Project(), "the run failed")
    [alert] = told
    assert list(alert.failed_checks) == ["model.better: p = 0.4"]
    assert alert.error == ""


def test_a_warning_in_a_run_that_succeeds_is_told_too(told: list[Alert]) -> None:
    with dg.instance_for_test() as instance:
        result = dg.materialize([model, readable], instance=instance)
        assert failed_checks(instance, result.run_id) == ["model.readable: shop is gone"]
        assert tell_of_run(instance, result.dagster_run, Project())
    assert "shop is gone" in told[0].text


def test_a_failed_step_is_told_with_what_it_said(told: list[Alert]) -> None:
    with dg.instance_for_test() as instance:
        result = dg.materialize([broken], instance=instance, raise_on_error=False)
        assert failed_steps(instance, result.run_id) == ["broken: the disk is full"]
        assert tell_of_run(instance, result.dagster_run, Project(), "the run failed")
    assert told[0].error == "broken: the disk is full"


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_run_ended_in_the_terminal_is_not_told_by_the_sensor_and_a_worker_of_the_schedule_is(
    told: list[Alert], by_hand: bool
) -> None:
    with dg.instance_for_test() as instance:
        cursor = tick(instance, None)
        tags = this_process() if by_hand else {}
        dg.materialize([interrupted], instance=instance, raise_on_error=False, tags=tags)
        [run] = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE, "so that the sensor is asked"
        assert was_interrupted(instance, run.run_id)
        tick(instance, cursor)
    assert [alert.run_id for alert in told] == ([] if by_hand else [run.run_id])


def tick(instance: dg.DagsterInstance, cursor: str | None) -> str | None:
    """One evaluation by Dagster's own code, as the daemon makes it."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"project": Project()})
    with context:
        return alert_on_failed_run.evaluate_tick(context).cursor


def test_a_good_run_is_not_told(told: list[Alert]) -> None:
    with dg.instance_for_test() as instance:
        result = dg.materialize([model], instance=instance)
        assert not tell_of_run(instance, result.dagster_run, Project())
    assert told == []


def test_a_step_that_raises_is_told_by_its_cause_and_not_by_dagsters_frame() -> None:
    @dg.asset
    def ours() -> None:
        raise AlertError("the webhook is gone\nand more") from ValueError("x")

    @dg.asset
    def theirs() -> None:
        raise OSError(28, "No space left on device")

    with dg.instance_for_test() as instance:
        result = dg.materialize([ours, theirs], instance=instance, raise_on_error=False)
        said = set(failed_steps(instance, result.run_id))
    assert said == {"ours: the webhook is gone", "theirs: OSError: [Errno 28] No space left on device"}
