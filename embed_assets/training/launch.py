"""One process per GPU: for a large model and several GPUs, the training process becomes torchrun, which starts them.

The process keeps its number, its environment and its place under Dagster, so that the log and a cancel reach it as
before. CUDA_VISIBLE_DEVICES says which GPUs may be used.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from embed_assets.encoder.layout import ModelError, parameter_count
from embed_assets.files import StoreError
from embed_assets.models import LARGE_FROM_PARAMETERS
from embed_assets.process import die_with_the_parent
from embed_assets.training.errors import TrainingError
from embed_assets.training.job import TrainingJob, read_job


def become_torchrun_where_it_pays(module: str, arguments: Sequence[str]) -> None:
    """Where the job of `python -m module JOB.json` gains by several GPUs, replaces this process and does not return."""
    try:
        count = processes(read_job(Path(arguments[0])))
    except (IndexError, TrainingError, StoreError, ModelError):
        return  # the module itself says what is wrong
    if count > 1:
        die_with_the_parent()
        os.execv(sys.executable, torchrun(count, module, arguments))


def torchrun(count: int, module: str, arguments: Sequence[str]) -> list[str]:
    """The command that starts `count` processes of `python -m module arguments`."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [*launcher, "-m", module, *arguments]


def processes(job: TrainingJob) -> int:
    """How many processes train the job: for a large model one per visible GPU, and otherwise one.

    A step of a small model waits for the host that starts its kernels, not for the GPU: more of them would only add
    messages. Within torchrun it is one, too.

    Raises:
        ModelError: the base model cannot be read.
    """
    if job.device not in ("auto", "cuda") or "WORLD_SIZE" in os.environ:
        return 1
    import torch

    gpus = min(torch.cuda.device_count(), job.recipe.batch_size)
    return gpus if gpus > 1 and parameter_count(Path(job.base_path)) >= LARGE_FROM_PARAMETERS else 1
