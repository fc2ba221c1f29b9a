"""Whether processes are at work: one that died counts as gone also where nobody takes note of its end."""

import time

import psutil


def is_gone(process: psutil.Process) -> bool:
    """A zombie is: in a container whose first process reaps nothing it stays for ever."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(*processes: psutil.Process, timeout_seconds: float = 120) -> None:
    deadline = time.monotonic() + timeout_seconds
    while left := [process for process in processes if not is_gone(process)]:
        assert time.monotonic() < deadline, f"still at work: {left}"
        time.sleep(0.05)
