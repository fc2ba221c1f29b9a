"""`python -m embed_assets.evaluation JOB.json`: one evaluation in a process of its own (`process` says how it ends)."""

import sys
from pathlib import Path

from embed_assets.evaluation.evaluate import evaluate_candidate
from embed_assets.evaluation.job import read_job
from embed_assets.evaluation.progress import Progress
from embed_assets.evaluation.table import recall_table
from embed_assets.process import run_process


def evaluate(path: Path) -> None:
    """Runs the job in the file `path`, which writes the report last and whole, or not at all."""
    with Progress.for_this_process() as progress:
        report = evaluate_candidate(read_job(path), progress.observe)
        progress.line(f"evaluated candidate {report.candidate_id} in {report.seconds:.0f} s\n{recall_table(report)}")


if __name__ == "__main__":
    raise SystemExit(run_process("embed_assets.evaluation", evaluate, sys.argv[1:]))
