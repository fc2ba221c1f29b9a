"""Tells people when a night's run or one of its checks failed: once a run, whichever of the two was seen first."""

import re
from collections.abc import Sequence
from typing import Any

import dagster as dg

from embed_assets.alerts import Alert, send_alert
from embed_assets.defs import metadata
from embed_assets.defs.abandoned import PROCESS_TAG
from embed_assets.defs.resources import Project


def failed_checks(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """`asset.check: description` of every check of the run that did not pass, whatever its severity."""
    evaluations = [
        event.asset_check_evaluation_data
        for event in _events(instance, run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    ]
    return [
        f"{evaluation.asset_key.to_user_string()}.{evaluation.check_name}: {evaluation.description or 'failed'}"
        for evaluation in evaluations
        if not evaluation.passed
    ]


def failed_steps(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """`step: what it said` of every step that failed."""
    said = []
    for event in _events(instance, run_id, dg.DagsterEventType.STEP_FAILURE):
        failure = event.step_failure_data
        given = failure.user_failure_data.description if failure.user_failure_data else None
        said.append(f"{event.step_key}: {first_line(given or _cause(failure.error) or 'failed')}")
    return said


def _cause(error: Any) -> str:
    """What the stage itself said, out of Dagster's SerializableErrorInfo; our own errors need no class name."""
    while error is not None and error.cause is not None:
        if error.message.startswith("embed_assets."):
            break
        error = error.cause
    return re.sub(r"^embed_assets\.[\w.]+: ", "", error.message) if error is not None else ""


def refusals(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """What promotion said at the door, where it refused although no check of the same run had failed."""
    return [
        said
        for event, said in zip(
            _events(instance, run_id, dg.DagsterEventType.STEP_FAILURE), failed_steps(instance, run_id), strict=True
        )
        if (given := event.step_failure_data.user_failure_data) is not None and metadata.REFUSED in given.metadata
    ]


def was_interrupted(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a signal ended the run; where nobody asked for it in the UI, Dagster calls that a failure."""
    ends = _events(instance, run_id, dg.DagsterEventType.RUN_FAILURE)
    reasons = [getattr(event.job_failure_data.failure_reason, "value", "") for event in ends]
    return "UNEXPECTED_TERMINATION" in reasons or bool(_events(instance, run_id, dg.DagsterEventType.RUN_CANCELED))


def was_ended_by_hand(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether who began the run in a terminal ended it: they know. The end of a scheduled worker is told."""
    return PROCESS_TAG in run.tags and was_interrupted(instance, run.run_id)


def _events(instance: dg.DagsterInstance, run_id: str, kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    records = instance.get_records_for_run(run_id, of_type=kind).records
    return [record.event_log_entry.get_dagster_event() for record in records]


def tell_of_run(instance: dg.DagsterInstance, run: dg.DagsterRun, project: Project, error: str = "") -> bool:
    """Sends the alert of a run with failed checks or steps; says whether one went out.

    Raises:
        AlertError: the webhook did not take it.
    """
    checks = failed_checks(instance, run.run_id)
    steps: Sequence[str] = failed_steps(instance, run.run_id)
    if not checks and not steps and not error:
        return False
    alert = Alert(
        run_id=run.root_run_id or run.run_id,
        job=run.job_name,
        failed_checks=checks,
        error="" if checks else "; ".join(steps) or first_line(error),
    )
    return send_alert(alert, project.settings().alerts, project.store)


def first_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[0][:500] if lines else ""


@dg.run_failure_sensor(
    name="alert_on_failed_run",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts to the webhook when a run fails.",
)
def alert_on_failed_run(context: dg.RunFailureSensorContext, project: Project) -> None:
    _tell(context, project, context.failure_event.message or "the run failed")


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    name="alert_on_failed_check",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts to the webhook when a run succeeds with a failed, non-blocking check.",
)
def alert_on_failed_check(context: dg.RunStatusSensorContext, project: Project) -> None:
    _tell(context, project)


def _tell(context: dg.RunStatusSensorContext, project: Project, error: str = "") -> None:
    """An alert that cannot be delivered fails the sensor's tick, which the UI shows."""
    if was_ended_by_hand(context.instance, context.dagster_run):
        return
    if tell_of_run(context.instance, context.dagster_run, project, error):
        context.log.info(f"told the webhook of run {context.dagster_run.run_id}")


SENSORS = (alert_on_failed_run, alert_on_failed_check)
