"""`python -m embed_assets.training JOB.json`: one training job in a process of its own.

Exit codes: 0 done, 1 an error (one line on standard error, and in the file that EMBED_ASSETS_ERROR_FILE names),
143 ended by SIGTERM. Whatever happens, no half-written candidate stays.
"""

import logging
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from dagster_pipes import PipesContext, open_dagster_pipes

from embed_assets.encoder.layout import ModelError
from embed_assets.store import StoreError
from embed_assets.training.candidate import run_job
from embed_assets.training.errors import TrainingError
from embed_assets.training.job import read_job
from embed_assets.training.report import Reporter

PIPES_VARIABLE = "DAGSTER_PIPES_CONTEXT"
ERROR_FILE_VARIABLE = "EMBED_ASSETS_ERROR_FILE"


class PipesLog(logging.Handler):
    """Passes log records on to Dagster."""

    def __init__(self, pipes: PipesContext) -> None:
        super().__init__()
        self.pipes = pipes

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning" if record.levelno >= logging.WARNING else "info"
        getattr(self.pipes.log, level)(self.format(record))


def main(arguments: list[str]) -> int:
    """Runs the job that the one argument names."""
    if len(arguments) != 1:
        print("usage: python -m embed_assets.training JOB.json", file=sys.stderr)  # noqa: T201
        return 2
    signal.signal(signal.SIGTERM, _leave)
    leads = os.environ.get("RANK", "0") == "0"
    try:
        with ExitStack() as stack:
            log = logging.getLogger("embed_assets")
            log.setLevel(logging.INFO if leads else logging.WARNING)
            if leads and PIPES_VARIABLE in os.environ:
                pipes = stack.enter_context(open_dagster_pipes())
                log.addHandler(PipesLog(pipes))
                reporter = Reporter(say=pipes.log.info, bar=sys.stderr.isatty())
            else:
                log.addHandler(logging.StreamHandler())
                reporter = Reporter.for_terminal()
            job = read_job(Path(arguments[0]))
            summary = run_job(job, stack.enter_context(reporter).observe)
            if leads:
                log.info(
                    "candidate %s: loss %.3f -> %.3f in %.0f s",
                    job.candidate_id, summary["first_loss"], summary["final_loss"], summary["seconds"],
                )  # fmt: skip
    except (TrainingError, ModelError, StoreError) as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("out of memory; lower training.batch_size or model.max_tokens")
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    if ERROR_FILE_VARIABLE in os.environ:
        Path(os.environ[ERROR_FILE_VARIABLE]).write_text(message + "\n", encoding="utf-8")
    return 1


def _leave(number: int, frame: FrameType | None) -> None:
    """Leaves through every `finally`, so that temporary folders are removed."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
