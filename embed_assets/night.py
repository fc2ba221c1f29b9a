"""Runs the nightly job in this process, as the command line does, and says in one word how it ended."""

import signal
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import dagster as dg

from embed_assets.alerts import AlertError
from embed_assets.definitions import defs, project
from embed_assets.defs.abandoned import end_abandoned_runs, this_process
from embed_assets.defs.assets import NOT_TRAINED
from embed_assets.defs.sensors import failed_checks, failed_steps, refusals, tell_of_run, was_interrupted

GATE_CHECKS = ("no_leakage", "recall_beats_live", "guard_not_regressed", "not_trained_on_the_test")


@dataclass(frozen=True, kw_only=True)
class NightOutcome:
    """How one run of the graph ended."""

    name: Literal["promoted", "refused", "unchanged", "failed", "cancelled"]
    run_id: str
    reasons: tuple[str, ...] = ()
    untold: str = ""
    """Why the alert could not be delivered, where there was one; the night's outcome stands."""

    @property
    def text(self) -> str:
        lines = [self.name, *(f"- {reason}" for reason in self.reasons)]
        return "\n".join([*lines, *([f"- nobody was told: {self.untold}"] if self.untold else [])])

    def to_json(self) -> dict[str, Any]:
        return {"outcome": self.name, **{key: value for key, value in asdict(self).items() if key != "name"}}


def run_night(overrides: Mapping[str, Any]) -> NightOutcome:
    """Materialises the graph through Dagster's instance, so that the UI shows this run like any other.

    An interrupt (SIGINT, SIGTERM) ends the step that is at work, with its process, and is an outcome.
    """
    # Not what SIGINT does: that is ignored where a shell started the night in the background.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_id = str(uuid.uuid4())
    config = {key: value for key, value in overrides.items() if value is not None}
    with dg.DagsterInstance.get() as instance:
        for run in end_abandoned_runs(instance):
            _tell(instance, run, "the process that ran it died")
        try:
            result = defs.resolve_job_def("nightly").execute_in_process(
                instance=instance,
                raise_on_error=False,
                run_id=run_id,
                tags=this_process(),
                run_config={"ops": {"finetuned_adapter": {"config": config}}, "loggers": {"terminal": {}}},
            )
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            return NightOutcome(name="cancelled", run_id=run_id)
        outcome = outcome_of(instance, result)
        if outcome.name == "cancelled":
            return outcome  # by whom it concerns
        return replace(outcome, untold=_tell(instance, result.dagster_run))


def _tell(instance: dg.DagsterInstance, run: dg.DagsterRun, error: str = "") -> str:
    """Tells people what went wrong in a run, if anything did; returns why they could not be told."""
    try:
        tell_of_run(instance, run, project, error)
    except AlertError as failure:
        return str(failure)
    return ""


def outcome_of(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> NightOutcome:
    """Reads the outcome off the run's own events."""
    run_id = result.run_id
    if was_interrupted(instance, run_id):
        return NightOutcome(name="cancelled", run_id=run_id)
    checks = tuple(failed_checks(instance, run_id))
    at_the_door = tuple(refusals(instance, run_id))
    if at_the_door or any(f".{name}:" in check for check in checks for name in GATE_CHECKS):
        return NightOutcome(name="refused", run_id=run_id, reasons=(*checks, *at_the_door))
    if not result.success:
        return NightOutcome(name="failed", run_id=run_id, reasons=(*checks, *failed_steps(instance, run_id)))
    materialised = {
        event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key
    }
    name: Literal["promoted", "unchanged"] = "promoted" if "checkpoint_latest" in materialised else "unchanged"
    return NightOutcome(name=name, run_id=run_id, reasons=(*checks, *_why_not_trained(result)))


def _why_not_trained(result: dg.ExecuteInProcessResult) -> Iterator[str]:
    for event in result.filter_events(lambda event: event.event_type == dg.DagsterEventType.ASSET_OBSERVATION):
        said = event.asset_observation_data.asset_observation.metadata.get(NOT_TRAINED)
        if isinstance(said, dg.TextMetadataValue) and said.text:
            yield said.text
