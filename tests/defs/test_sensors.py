"""Whichever sensor sees a bad run first, people are told of it once."""

import dagster as dg
import pytest

from embed_assets.alerts import Alert, AlertError
from embed_assets.defs import sensors
from embed_assets.defs.resources import Project
from embed_assets.defs.sensors import failed_checks, failed_steps, tell_of_run


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
