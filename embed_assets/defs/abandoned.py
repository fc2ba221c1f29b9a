"""Runs of the command line whose process died: without a daemon nobody ends them, and they hold the training's slot.

Runs that the schedule or the UI started are not touched: Dagster's run monitoring looks after those.
"""

import socket

import dagster as dg
import psutil

PROCESS_TAG = "embed_assets/process"
"""Tag of a run: machine, process id and when that process began, since ids come back."""
SAME_START_SECONDS = 2.0


def this_process() -> dict[str, str]:
    """Tags that say which process executes a run."""
    process = psutil.Process()
    return {PROCESS_TAG: f"{socket.gethostname()} {process.pid} {process.create_time():.1f}"}


def end_abandoned_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Marks runs of dead processes of this machine as failed and frees what they hold; returns them."""
    unfinished = instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    abandoned = [run for run in unfinished if PROCESS_TAG in run.tags and _is_gone(run.tags[PROCESS_TAG])]
    for run in abandoned:
        instance.report_run_failed(run, "the process that executed this run died before the run ended")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return abandoned


def _is_gone(tag: str) -> bool:
    host, process_id, began = tag.split(" ")
    if host != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(int(process_id)).create_time() - float(began)) > SAME_START_SECONDS)
    except psutil.NoSuchProcess:
        return True
