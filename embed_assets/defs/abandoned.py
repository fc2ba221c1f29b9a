"""Runs of the command line whose process died: without a daemon nobody ends them, and they hold the training's slot.

Runs that the schedule or the UI started are not touched: Dagster's run monitoring looks after those.
"""

import os
import socket
from pathlib import Path

import dagster as dg
import psutil

PROCESS_TAG = "embed_assets/process"
"""Tag of a run: machine, process id and when that process began, since ids come back."""


def this_process() -> dict[str, str]:
    """Tags that say which process executes a run."""
    return {PROCESS_TAG: f"{socket.gethostname()} {os.getpid()} {_began(os.getpid())}"}


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
    return host == socket.gethostname() and _began(int(process_id)) != began


def _began(process_id: int) -> str:
    """When a process began; empty when it is gone, or has died and waits for its parent to take note.

    The kernel's own count where there is one: a time of day is worked out from the time of boot, which moves with
    the clock. Source: proc_pid_stat(5), fields 3 and 22.
    """
    try:
        if Path("/proc/self/stat").exists():
            stat = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8", errors="replace")
            fields = stat.rpartition(")")[2].split()  # from field 3 on: the name before may hold anything
            return "" if fields[0] in "ZX" else f"tick-{fields[19]}"
        process = psutil.Process(process_id)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.1f}"
    except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        return ""
