"""The training loop. It reads from top to bottom as what happens in a night: batches, loss, step, validation.

It is deterministic: the same data, recipe and number of threads give the same adapter, bit for bit, also when the
run was interrupted in between. On CUDA the host is a step ahead of the device: a step's loss is read while the next
one computes. It knows vectors and pairs; files, candidates and Dagster are its callers' matter.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embed_assets.checkpoints.warm_start import WarmStart
from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.transfer import Arrival
from embed_assets.training.adapter import adapter_state, load_adapter_state
from embed_assets.training.curve import StepRecord
from embed_assets.training.data import Batch, TrainingData, epoch_batches, make_batch
from embed_assets.training.errors import TrainingError
from embed_assets.training.figures import Figures, QueuedStep
from embed_assets.training.lexical_teacher import LexicalTeacher
from embed_assets.training.memory import MemoryPlan, is_out_of_memory
from embed_assets.training.ranks import Ranks
from embed_assets.training.recipe import Recipe
from embed_assets.training.rehearsal import Rehearsal
from embed_assets.training.resume import Progress, save_progress
from embed_assets.training.start import Run, start_run
from embed_assets.training.step import loss_and_gradients
from embed_assets.training.validation import ValidationSet, validation_mrr

if TYPE_CHECKING:
    import torch

SAVE_EVERY_SECONDS = 60.0
DIVERGENCE_WINDOW = 20
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingResult:
    """A trained adapter, still inside the encoder's model, and how it came about."""

    adapted: Any
    """PEFT's wrapper around the encoder's model; the kept pass's weights are in place."""
    curve: list[StepRecord]
    seconds: float
    validation_before: float | None
    """Mean reciprocal rank@10 of the validation rows before the first step."""
    validation_after: float | None
    """The kept pass's."""
    best_epoch: int
    """Of the pass that is kept, from 1: the last one that no earlier pass clearly beats."""
    plan: MemoryPlan
    """As it was at the end."""
    path: str
    precision: str
    """Of the large matrix products."""


def train(
    encoder: Encoder,
    data: TrainingData,
    recipe: Recipe,
    *,
    start: WarmStart | None = None,
    rehearsal: Rehearsal | None = None,
    teacher: LexicalTeacher | None = None,
    plan: MemoryPlan | None = None,
    validation: ValidationSet | None = None,
    path: str = "auto",
    precision: str = "auto",
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    observe: Callable[[StepRecord, int], None] = lambda record, steps: None,
    progress_file: Path | None = None,
    run: str = "",
) -> TrainingResult:
    """Trains an adapter on `data` and leaves the kept pass's weights in the encoder's model.

    Args:
        start: the adapter to continue; a fresh one, which adds nothing, when not given.
        rehearsal: foreign docs whose ranking is to stay the base model's; nothing is rehearsed when not given.
        teacher: what has a share in the loss beside the labels; they have all of it when not given.
        plan: how a step fits into memory; made from the data and the device's free memory when not given.
        validation: what decides which pass is kept; without it the last one is.
        path: auto, padded, flat, packed or fused.
        precision: of the large products on a CPU: float32, bfloat16, or auto, bfloat16 where the CPU is fast at it.
        observe: called after every step with its record and the number of all steps.
        progress_file: where an interrupted run is saved and found again.
        run: digest of what is trained on what; a saved run of another digest is left alone.

    Raises:
        TrainingError: the loss is no number or explodes, a LoRA target is wrong, or memory runs out twice.
    """
    begun = start_run(
        encoder, data, recipe, start=start, rehearsal=rehearsal, plan=plan, path=path, precision=precision, ranks=ranks,
        progress_file=progress_file, digest=run,
    )  # fmt: skip
    progress = begun.progress
    if progress.step == 0 and validation is not None and ranks.leads:
        progress.validation_before = validation_mrr(encoder, validation)

    steps_per_epoch = len(epoch_batches(data, recipe.batch_size, seed=recipe.seed, epoch=0))
    steps = steps_per_epoch * recipe.epochs
    figures = Figures(begun, steps_per_epoch)
    saved_at = time.monotonic()
    for number, rows, batch in _batches_ahead(data, recipe, rehearsal, teacher, progress.step):
        queued = _queue_step(begun, number, len(rows), batch, learning_rate_at(number, steps, recipe))
        ends_epoch = (number + 1) % steps_per_epoch == 0
        reads = number + 1 == steps or (ends_epoch and validation is not None)
        saves = progress_file is not None and time.monotonic() - saved_at > SAVE_EVERY_SECONDS
        for step in figures.due(queued, all_of_them=reads or saves):
            record, elapsed = figures.read(step)
            _require_finite(record, recipe)
            if ends_epoch and step is queued and ranks.leads:
                epoch = (number + 1) // steps_per_epoch
                record = replace(record, validation_mrr=_keep_the_best(encoder, validation, progress, epoch))
            progress.seconds += elapsed + figures.lap()
            progress.curve.append(record)
            progress.step = step.number + 1
            _require_convergence(progress.curve, recipe)
            observe(record, steps)
        if saves and progress_file and ranks.leads:
            save_progress(progress_file, run, progress, encoder.model, begun.optimizer)
            saved_at = time.monotonic()
            figures.lap()
        if reads or saves:
            figures.interrupted()

    if progress.best_state is not None:
        load_adapter_state(encoder.model, progress.best_state)
    return TrainingResult(
        adapted=begun.adapted,
        curve=progress.curve,
        seconds=progress.seconds,
        validation_before=progress.validation_before,
        validation_after=progress.best_mrr if progress.best_state is not None else None,
        best_epoch=progress.best_epoch or recipe.epochs,
        plan=begun.plan,
        path=begun.path,
        precision=begun.precision,
    )


def _queue_step(run: Run, number: int, rows: int, batch: Batch, rate: float) -> QueuedStep:
    """Loss, gradients and the optimizer's step; on CUDA nothing here waits for the device."""
    import torch

    run.optimizer.zero_grad(set_to_none=True)
    loss, run.plan = _loss_with_one_retry(run.encoder, batch, run.recipe, run.plan, run.path, run.ranks)
    run.ranks.sum_gradients(run.parameters.values())
    norm = torch.nn.utils.clip_grad_norm_(run.parameters.values(), run.recipe.max_gradient_norm)
    run.optimizer.param_groups[0]["lr"] = rate
    run.optimizer.step()
    return QueuedStep(number, rows, batch, rate, Arrival(torch.stack([loss, norm.to(loss.dtype)])))


def _batches_ahead(
    data: TrainingData, recipe: Recipe, rehearsal: Rehearsal | None, teacher: LexicalTeacher | None, first: int
) -> Iterator[tuple[int, np.ndarray, Batch]]:
    """(step, its rows, its batch) from step `first` on; the next one is made while this one computes."""

    def made(step: int, rows: np.ndarray) -> Batch:
        batch = make_batch(data, rows)
        batch = teacher.beside(batch, data, rows) if teacher else batch
        return rehearsal.beside(batch, step) if rehearsal else batch

    def shuffled() -> Iterator[tuple[int, np.ndarray]]:
        step = 0
        for epoch in range(recipe.epochs):
            for rows in epoch_batches(data, recipe.batch_size, seed=recipe.seed, epoch=epoch):
                if step >= first:  # the others were done before the interruption
                    yield step, rows
                step += 1

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as ahead:
        ready: deque[tuple[int, np.ndarray, Future[Batch]]] = deque()
        for step, rows in shuffled():
            ready.append((step, rows, ahead.submit(made, step, rows)))
            if len(ready) > 1:
                number, of, batch = ready.popleft()
                yield number, of, batch.result()
        for number, of, batch in ready:
            yield number, of, batch.result()


def learning_rate_at(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up to the peak, then linear decay towards zero. `step` counts from 0."""
    warmup = math.ceil(recipe.warmup_ratio * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    return recipe.learning_rate * (steps - step) / max(1, steps - warmup)


def _loss_with_one_retry(
    encoder: Encoder, batch: Batch, recipe: Recipe, plan: MemoryPlan, path: str, ranks: Ranks
) -> "tuple[torch.Tensor, MemoryPlan]":
    """The step's loss, gradients filled in; out of memory is met once with a smaller plan, which then stays.

    On several ranks it ends the run: the others wait for this one's vectors, and none can go back alone.
    """
    arguments: dict[str, Any] = {"temperature": recipe.temperature, "path": path, "ranks": ranks}
    try:
        return loss_and_gradients(encoder, batch, plan=plan, **arguments), plan
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if plan.retried or ranks.count > 1:
            raise TrainingError(_out_of_memory(encoder, plan, ranks)) from error
        message = str(error).splitlines()[0]
    smaller = plan.smaller()
    logger.warning("%s (%s)", smaller.reason, message)
    encoder.model.zero_grad(set_to_none=True)
    _empty_cache(encoder.device)
    return _loss_with_one_retry(encoder, batch, recipe, smaller, path, ranks)


def _out_of_memory(encoder: Encoder, plan: MemoryPlan, ranks: Ranks) -> str:
    """What ran out, and what to do about it."""
    shorten = f"shorten model.max_tokens (now {encoder.max_tokens}) or free memory on {encoder.device}"
    if ranks.count == 1:
        return f"out of memory with micro-batches of {plan.micro_batch_tokens:,} tokens too; {shorten}"
    return (
        f"out of memory in one of {ranks.count} processes, which cannot retry alone; {shorten}, lower "
        "training.batch_size, or train on one GPU, which retries (CUDA_VISIBLE_DEVICES=0)"
    )


def _empty_cache(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


def _keep_the_best(encoder: Encoder, validation: ValidationSet | None, progress: Progress, epoch: int) -> float | None:
    if validation is None:
        return None
    mrr = validation_mrr(encoder, validation)
    highest = max((each.validation_mrr for each in progress.curve if each.validation_mrr is not None), default=mrr)
    if mrr >= highest - validation.tolerance:  # the rate falls to zero towards the last pass: it is the one to want
        progress.best_mrr, progress.best_epoch = mrr, epoch
        progress.best_state = adapter_state(encoder.model)
    return mrr


def _require_finite(record: StepRecord, recipe: Recipe) -> None:
    if not (math.isfinite(record.loss) and math.isfinite(record.gradient_norm)):
        raise TrainingError(
            f"step {record.step}: the loss is {record.loss}, the gradient's norm {record.gradient_norm}; lower "
            f"training.learning_rate (now {recipe.learning_rate:g}), or check the base model's weights"
        )


def _require_convergence(curve: list[StepRecord], recipe: Recipe) -> None:
    """Stops a run whose loss has clearly risen: the mean of the last steps against that of the first."""
    if len(curve) < 2 * DIVERGENCE_WINDOW:
        return
    first = sum(record.loss for record in curve[:DIVERGENCE_WINDOW]) / DIVERGENCE_WINDOW
    last = sum(record.loss for record in curve[-DIVERGENCE_WINDOW:]) / DIVERGENCE_WINDOW
    if last > 1.5 * first + 1.0:
        raise TrainingError(
            f"step {curve[-1].step}: the loss explodes, from {first:.2f} at the start to {last:.2f}; lower "
            f"training.learning_rate (now {recipe.learning_rate:g})"
        )
