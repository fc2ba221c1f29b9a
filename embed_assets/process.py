"""How a stage's process begins and ends: one job in, a log to whoever listens, one line where it fails.

`python -m embed_assets.training JOB.json` and `python -m embed_assets.evaluation JOB.json` are run by Dagster, through
Pipes, and by hand. The process knows neither; it logs under `embed_assets` and raises.
"""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from dagster_pipes import PipesContext, open_dagster_pipes

from embed_assets.settings import ERROR_FILE_VARIABLE

PIPES_VARIABLE = "DAGSTER_PIPES_CONTEXT"
PARENT_DIES = 1
"""Linux's PR_SET_PDEATHSIG: a parent that is killed takes its training along."""


def run_process(name: str, run: Callable[[Path], None], arguments: list[str]) -> int:
    """Runs `run` on the job file that the one argument names.

    Returns:
        The exit code: 0 done, 1 an error of ours (one line on standard error), 2 a wrong call. Interrupts leave
        through every `finally` with 128 + the signal's number.
    """
    if len(arguments) != 1:
        print(f"usage: python -m {name} JOB.json", file=sys.stderr)  # noqa: T201
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    die_with_the_parent()
    try:
        with logging_to_whoever_listens():
            run(Path(arguments[0]))
    except MemoryError:
        return _fail("out of memory; lower training.batch_size or model.max_tokens")
    except Exception as error:
        if not type(error).__module__.startswith("embed_assets."):
            _fail(f"{type(error).__name__}: {error}")
            raise
        return _fail(str(error))
    return 0


@contextmanager
def logging_to_whoever_listens() -> Iterator[None]:
    """Log lines go to Dagster where it started the process, else to standard error; of all ranks the first speaks.

    Dagster gets the lines for it alone too (DEBUG): those that a progress bar on the terminal says already.
    """
    log = logging.getLogger("embed_assets")
    leads = os.environ.get("RANK", "0") == "0"
    log.setLevel(logging.DEBUG if leads else logging.WARNING)
    with ExitStack() as stack:
        handler: logging.Handler = logging.StreamHandler()
        handler.setLevel(logging.INFO)
        if leads and PIPES_VARIABLE in os.environ:
            handler = PipesLog(stack.enter_context(open_dagster_pipes()))
        log.addHandler(handler)
        stack.callback(log.removeHandler, handler)
        yield


class PipesLog(logging.Handler):
    """Passes log records on to Dagster."""

    def __init__(self, pipes: PipesContext) -> None:
        super().__init__()
        self.pipes = pipes

    def emit(self, record: logging.LogRecord) -> None:
        self.pipes.log.log(record.levelno, self.format(record))


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    if ERROR_FILE_VARIABLE in os.environ:
        Path(os.environ[ERROR_FILE_VARIABLE]).write_text(message + "\n", encoding="utf-8")
    return 1


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def die_with_the_parent() -> None:
    """Asks Linux for SIGTERM when the parent dies; elsewhere there is no such thing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PARENT_DIES, signal.SIGTERM)
