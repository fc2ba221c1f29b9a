"""A step's figures: what is read of it, when, and how fast it was.

On CUDA the host is a step ahead of the device: a step's loss is read while the next one computes.
"""

import time
from dataclasses import dataclass

from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.paths import computed_tokens
from embed_assets.encoder.transfer import Arrival
from embed_assets.training.curve import StepRecord
from embed_assets.training.data import Batch
from embed_assets.training.flops import peak_flops, training_flops
from embed_assets.training.memory import MemoryPlan, used_memory
from embed_assets.training.start import Run
from embed_assets.training.step import micro_batches


@dataclass(frozen=True, slots=True)
class QueuedStep:
    """A step that was queued, and its loss and gradient norm on their way."""

    number: int
    """From 0."""
    rows: int
    batch: Batch
    rate: float
    arrival: Arrival


class Figures:
    """Turns queued steps into records, each once, in their order."""

    def __init__(self, run: Run, steps_per_epoch: int) -> None:
        self._run = run
        self._steps_per_epoch = steps_per_epoch
        self._lap_began = time.monotonic()
        self._waiting: QueuedStep | None = None
        """Queued on the device, not read yet."""
        self._before: Arrival | None = None
        """Of the step that was read last, unless something came in between."""

    def due(self, queued: QueuedStep, *, all_of_them: bool) -> list[QueuedStep]:
        """The steps to read now that `queued` is on its way; the last one waits on CUDA, unless all are wanted."""
        due = [step for step in (self._waiting, queued) if step is not None]
        self._waiting = queued if self._run.on_cuda and not all_of_them else None
        return due[:-1] if self._waiting is not None else due

    def read(self, step: QueuedStep) -> tuple[StepRecord, float]:
        """The step's record, and the seconds since the last lap."""
        run = self._run
        loss, norm = step.arrival.wait().tolist()
        elapsed = self.lap()
        seconds = (self._before and step.arrival.seconds_since(self._before)) or elapsed
        self._before = step.arrival
        record = StepRecord(
            step=step.number + 1,
            epoch=(step.number + 1) / self._steps_per_epoch,
            loss=loss,
            gradient_norm=norm,
            learning_rate=step.rate,
            samples_per_second=step.rows / seconds,
            tokens_per_second=sum(map(len, step.batch.tokens)) / seconds,
            padding_share=padding_share(run.encoder, step.batch, run.plan, run.path),
            memory_bytes=used_memory(run.encoder.device),
            mfu=_utilisation(run, step.batch, seconds),
        )
        return record, elapsed

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.monotonic()
        seconds, self._lap_began = now - self._lap_began, now
        return max(seconds, 1e-9)

    def interrupted(self) -> None:
        """Something else was done: the device's time since the last step says nothing of the next."""
        self._before = None


def padding_share(encoder: Encoder, batch: Batch, plan: MemoryPlan, path: str) -> float:
    """Share of the computed tokens that are padding."""
    lengths = [len(row) for row in batch.tokens]
    batches = [[lengths[index] for index in part] for part in micro_batches(lengths, plan, path)]
    return 1.0 - sum(lengths) / computed_tokens(encoder, path, batches)


def _utilisation(run: Run, batch: Batch, seconds: float) -> float | None:
    """Share of the peak arithmetic of all ranks' devices that the step's model needed."""
    peak = peak_flops(run.encoder.device)
    if peak is None:
        return None
    trained = sum(parameter.numel() for parameter in run.parameters.values())
    config = run.encoder.model.config
    flops = training_flops(config, [len(row) for row in batch.tokens], adapter_parameters=trained)
    return flops / seconds / (peak * run.ranks.count)
