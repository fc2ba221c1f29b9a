"""`python -m embed_assets.evaluation JOB.json`: one evaluation in a process of its own.

Exit codes: 0 done, 1 an error (one line on standard error, and in the file that EMBED_ASSETS_ERROR_FILE names),
2 a wrong call, 143 ended by SIGTERM. The report is written last and whole, or not at all.
"""

import logging
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from dagster_pipes import open_dagster_pipes

from embed_assets.encoder.layout import ModelError
from embed_assets.evaluation.benchmark import BenchmarkError
from embed_assets.evaluation.errors import EvaluationError
from embed_assets.evaluation.evaluate import evaluate_candidate
from embed_assets.evaluation.job import read_job
from embed_assets.evaluation.progress import Progress
from embed_assets.evaluation.table import recall_table
from embed_assets.retrieval.exact import RetrievalError
from embed_assets.store import StoreError

PIPES_VARIABLE = "DAGSTER_PIPES_CONTEXT"
ERROR_FILE_VARIABLE = "EMBED_ASSETS_ERROR_FILE"


def main(arguments: list[str]) -> int:
    """Runs the job that the one argument names."""
    if len(arguments) != 1:
        print("usage: python -m embed_assets.evaluation JOB.json", file=sys.stderr)  # noqa: T201
        return 2
    signal.signal(signal.SIGTERM, _leave)
    logging.basicConfig(level=logging.WARNING)
    try:
        with ExitStack() as stack:
            say = None
            if PIPES_VARIABLE in os.environ:
                say = stack.enter_context(open_dagster_pipes()).log.info
            progress = stack.enter_context(Progress.for_this_process(say))
            job = read_job(Path(arguments[0]))
            report = evaluate_candidate(job, progress.observe)
            progress.line(f"evaluated candidate {report.candidate_id} in {report.seconds:.0f} s")
            if say is None:
                print(recall_table(report))  # noqa: T201
    except (EvaluationError, BenchmarkError, ModelError, RetrievalError, StoreError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"the report could not be written: {error}")
    except MemoryError:
        return _fail("out of memory while evaluating; close other programs, or lower model.max_tokens")
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    if ERROR_FILE_VARIABLE in os.environ:
        Path(os.environ[ERROR_FILE_VARIABLE]).write_text(message + "\n", encoding="utf-8")
    return 1


def _leave(number: int, frame: FrameType | None) -> None:
    """Leaves through every `finally`, so that temporary files are removed."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
