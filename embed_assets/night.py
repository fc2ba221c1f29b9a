"""Runs the nightly job in this process, as the command line does, and says in one word how it ended."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import dagster as dg

from embed_assets.definitions import defs, project
from embed_assets.defs.sensors import failed_checks, failed_steps, refusals, tell_of_run

GATE_CHECKS = ("no_leakage", "recall_beats_live", "guard_not_regressed", "not_trained_on_the_test")


@dataclass(frozen=True, kw_only=True)
class NightOutcome:
    """How one run of the graph ended."""

    name: Literal["promoted", "refused", "unchanged", "failed"]
    run_id: str
    reasons: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "\n".join([self.name, *(f"- {reason}" for reason in self.reasons)])

    def to_json(self) -> dict[str, Any]:
        return {"outcome": self.name, **{key: value for key, value in asdict(self).items() if key != "name"}}


def run_night(overrides: Mapping[str, Any]) -> NightOutcome:
    """Materialises the graph through Dagster's instance, so that the UI shows this run like any other."""
    config = {key: value for key, value in overrides.items() if value is not None}
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def("nightly").execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config={"ops": {"finetuned_adapter": {"config": config}}, "loggers": {"terminal": {}}},
        )
        outcome = outcome_of(instance, result)
        tell_of_run(instance, result.dagster_run, project)
    return outcome


def outcome_of(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> NightOutcome:
    """Reads the outcome off the run's own events."""
    run_id = result.run_id
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
    return NightOutcome(name=name, run_id=run_id, reasons=checks)
