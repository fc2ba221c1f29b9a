"""A run whose process died is ended by the next one; a run whose process lives, here or elsewhere, is not."""

import subprocess
import sys

import dagster as dg
import psutil
import pytest

from embed_assets.defs.abandoned import PROCESS_TAG, end_abandoned_runs, this_process
from tests.processes import wait_until_gone

PROGRAM = "from embed_assets.defs.abandoned import *; print(this_process()[PROCESS_TAG], flush=True)"


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


LIVES = [
    "dead",
    "a zombie",
    "another process of the same id",
    "alive",
    "alive and the clock was set",
    "elsewhere",
    "not ours",
]


@pytest.mark.parametrize("life", LIVES)
def test_only_runs_of_dead_processes_of_this_machine_are_ended(life: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host, process_id, began = this_process()[PROCESS_TAG].split(" ")
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    of_the_child = child.stdout.readline().strip()
    wait_until_gone(psutil.Process(child.pid))
    tag = f"{host} {process_id} {began}"
    if life == "dead":
        child.wait()
    if life in ("dead", "a zombie"):
        tag = of_the_child
    elif life == "another process of the same id":
        tag = f"{host} {process_id} {of_the_child.split(' ')[2]}"
    elif life == "alive and the clock was set":
        create_time = psutil.Process.create_time
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: create_time(process) + 100)
    elif life == "elsewhere":
        tag = f"another-machine 1 {began}"
    elif life == "not ours":
        tag = ""
    with dg.instance_for_test() as instance:
        run_id = started(instance, tag)
        ended = [run.run_id for run in end_abandoned_runs(instance)]
        run = instance.get_run_by_id(run_id)
    child.communicate()
    assert run is not None
    if life in ("dead", "a zombie", "another process of the same id"):
        assert (ended, run.status) == ([run_id], dg.DagsterRunStatus.FAILURE)
    else:
        assert (ended, run.status) == ([], dg.DagsterRunStatus.STARTED)
