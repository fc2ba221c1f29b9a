"""Says how training goes: a progress bar on a terminal, lines in a log, messages to Dagster when it listens."""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from embed_assets.terminal import terminal
from embed_assets.training.curve import StepRecord

SECONDS_BETWEEN_LINES = 15.0
SMOOTHING = 0.9
"""Of the samples/s shown: the last ten steps or so."""


class Reporter:
    """Follows a run's steps; use it as a context manager.

    Args:
        say: receives a line now and then; none are made when it is not given.
        screen: terminal to draw a progress bar on; none is drawn when it is not given.
    """

    def __init__(self, *, say: Callable[[str], None] | None, screen: TextIO | None) -> None:
        self._say = say
        self._progress: Any = _progress_bar(screen) if screen is not None else None
        self._task: Any = None
        self._spoke_at = 0.0
        self._rate: float | None = None
        self._started: tuple[float, int] | None = None

    @classmethod
    def for_this_process(cls) -> "Reporter":
        """A bar where a person looks on, and lines in the log that do not disturb it; else only the lines."""
        log, screen = logging.getLogger("embed_assets.training"), terminal()
        return cls(say=log.info if screen is None else log.debug, screen=screen)

    def __enter__(self) -> "Reporter":
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def observe(self, record: StepRecord, steps: int) -> None:
        """Takes one step's record."""
        previous = record.samples_per_second if self._rate is None else self._rate
        self._rate = SMOOTHING * previous + (1 - SMOOTHING) * record.samples_per_second
        if self._progress is not None:
            if self._task is None:
                self._task = self._progress.add_task("training", total=steps, said="")
            self._progress.update(self._task, completed=record.step, said=self._figures(record))
        now = time.monotonic()
        self._started = self._started or (now, record.step)
        last = record.step == steps
        if self._say is not None and (last or now - self._spoke_at >= SECONDS_BETWEEN_LINES):
            self._spoke_at = now
            self._say(f"step {record.step}/{steps}  {self._figures(record)}{self._remaining(record, steps)}")

    def _figures(self, record: StepRecord) -> str:
        validation = "" if record.validation_mrr is None else f"  validation MRR@10 {record.validation_mrr:.3f}"
        return f"loss {record.loss:.3f}  {self._rate:.1f} samples/s{validation}"

    def _remaining(self, record: StepRecord, steps: int) -> str:
        started, first = self._started or (0.0, record.step)
        if record.step in (first, steps):
            return ""
        seconds = (time.monotonic() - started) / (record.step - first) * (steps - record.step)
        return f"  {seconds:.0f} s left"


def _progress_bar(screen: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
        console=Console(file=screen),
    )
