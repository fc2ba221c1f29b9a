"""`python -m embed_assets.training JOB.json`: one training job in a process of its own (`process` says how it ends).

For a large model on a host with several GPUs it is one process per GPU (`launch`).
"""

import logging
import sys
from pathlib import Path

from embed_assets.process import run_process
from embed_assets.training.candidate import run_job
from embed_assets.training.job import read_job
from embed_assets.training.launch import become_torchrun_where_it_pays
from embed_assets.training.report import Reporter


def train(path: Path) -> None:
    """Runs the job in the file `path`, which writes the candidate whole or not at all."""
    job = read_job(path)
    with Reporter.for_this_process() as reporter:
        summary = run_job(job, reporter.observe)
    if summary:
        logging.getLogger("embed_assets.training").info(
            "candidate %s: loss %.3f -> %.3f in %.0f s",
            job.candidate_id, summary["first_loss"], summary["final_loss"], summary["seconds"],
        )  # fmt: skip


if __name__ == "__main__":
    become_torchrun_where_it_pays("embed_assets.training", sys.argv[1:])
    raise SystemExit(run_process("embed_assets.training", train, sys.argv[1:]))
