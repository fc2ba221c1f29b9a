"""The training curve: one record a step, written line by line so that it can be watched while it grows."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What one optimizer step looked like."""

    step: int
    """From 1."""
    epoch: float
    """Passes over the data so far, a fraction."""
    loss: float
    gradient_norm: float
    """Before clipping."""
    learning_rate: float
    samples_per_second: float
    """Rows (query, positive and negatives together) of this step per second."""
    tokens_per_second: float
    """Real tokens, padding not counted."""
    padding_share: float
    """Share of the computed tokens that were padding."""
    memory_bytes: int
    """Held by the process; on CUDA the device's peak."""
    mfu: float | None = None
    """Share of the device's peak arithmetic that the model needed (`flops`); None where the peak is not known."""
    validation_mrr: float | None = None
    """Mean reciprocal rank@10 on the validation rows, where it was measured after this step."""


def append_record(path: Path, record: StepRecord) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record), sort_keys=True) + "\n")


def write_curve(path: Path, records: Iterable[StepRecord]) -> None:
    path.write_text("".join(json.dumps(asdict(record), sort_keys=True) + "\n" for record in records), encoding="utf-8")


def read_curve(path: Path) -> list[StepRecord]:
    """The records of a curve; a last line that a crash cut off is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            document: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            break
        records.append(StepRecord(**document))
    return records


def curve_figures(curve: Sequence[StepRecord]) -> dict[str, float]:
    """The whole run in a few figures: medians over its steps, peaks of the learning rate and of the memory.

    `mfu` is missing where the device's peak is not known.
    """
    figures = {
        "gradient_norm": statistics.median(record.gradient_norm for record in curve),
        "learning_rate": max(record.learning_rate for record in curve),
        "tokens_per_second": statistics.median(record.tokens_per_second for record in curve),
        "padding_share": statistics.fmean(record.padding_share for record in curve),
        "memory_gib": max(record.memory_bytes for record in curve) / 2**30,
    }
    utilisation = [record.mfu for record in curve if record.mfu is not None]
    return figures | ({"mfu": statistics.median(utilisation)} if utilisation else {})
