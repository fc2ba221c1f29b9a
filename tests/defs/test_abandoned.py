"""A run whose process died is ended by the next one; a run whose process lives, here or elsewhere, is not."""

import subprocess
import sys

import dagster as dg
import psutil
import pytest

from embed_assets.defs.abandoned import PROCESS_TAG, end_abandoned_runs, this_process


def started(instance: dg.DagsterInstance, tag: str) -> str:
    run = instance.create_run_for_job(noop.to_job(), tags={PROCESS_TAG: tag} if tag else {})
    instance.report_engine_event("", run)
    instance.handle_new_event(_start(run))
    return run.run_id


@dg.graph
def noop() -> None:
    pass


def _start(run: dg.DagsterRun) -> dg.EventLogEntry:
    event = dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name=run.job_name, message="")
    return dg.EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None, level=20, user_message="", run_id=run.run_id, timestamp=0.0, dagster_event=event
    )


@pytest.mark.parametrize("life", ["dead", "another process of the same id", "alive", "elsewhere", "not ours"])
def test_only_runs_of_dead_processes_of_this_machine_are_ended(life: str) -> None:
    ours = this_process()[PROCESS_TAG].split(" ")
    host, process_id, began = ours
    if life == "dead":
        child = subprocess.Popen([sys.executable, "-c", "pass"])
        began = f"{psutil.Process(child.pid).create_time():.1f}"
        process_id = str(child.pid)
        child.wait()
    elif life == "another process of the same id":
        began = str(float(began) - 100)
    elif life == "elsewhere":
        host, process_id = "another-machine", "1"
    with dg.instance_for_test() as instance:
        run_id = started(instance, "" if life == "not ours" else f"{host} {process_id} {began}")
        ended = [run.run_id for run in end_abandoned_runs(instance)]
        run = instance.get_run_by_id(run_id)
    assert run is not None
    if life in ("dead", "another process of the same id"):
        assert (ended, run.status) == ([run_id], dg.DagsterRunStatus.FAILURE)
    else:
        assert (ended, run.status) == ([], dg.DagsterRunStatus.STARTED)
