"""The training curve as pictures for people: the loss with its trend and validation, and the run's other series."""

import io
from collections.abc import Sequence

import numpy as np

from embed_assets.training.curve import StepRecord

GREY, BLUE, GREEN = "#9aa0a6", "#1a73e8", "#188038"
TREND_STEPS = 15
"""Steps that the trend line averages over."""


def loss_curve_png(curve: Sequence[StepRecord]) -> bytes:
    """A PNG of the loss over the steps, with validation's mean reciprocal rank@10 on a second axis.

    It draws without a display and leaves no figure behind.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = np.asarray([record.step for record in curve])
    losses = np.asarray([record.loss for record in curve], dtype=np.float64)
    figure = Figure(figsize=(7.0, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(steps, losses, color=GREY, linewidth=0.8, alpha=0.7, label="loss of each step")
    axes.plot(steps, trend(losses), color=BLUE, linewidth=2, label=f"mean of {TREND_STEPS} steps")
    axes.set_xlabel("step")
    axes.set_ylabel("InfoNCE loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    measured = [(record.step, record.validation_mrr) for record in curve if record.validation_mrr is not None]
    if measured:
        beside = axes.twinx()
        beside.plot(*zip(*measured, strict=True), color=GREEN, marker="o", linestyle=":", label="validation MRR@10")
        beside.set_ylabel("validation MRR@10")
        beside.set_ylim(0, 1)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


SERIES: tuple[tuple[str, str, float], ...] = (
    ("gradient_norm", "gradient norm", 1.0),
    ("learning_rate", "learning rate", 1.0),
    ("samples_per_second", "samples/s", 1.0),
    ("tokens_per_second", "tokens/s", 1.0),
    ("mfu", "MFU, %", 100.0),
    ("memory_bytes", "memory, GiB", 2.0**-30),
    ("padding_share", "padding, %", 100.0),
)
"""Field of a record, its title, and the factor to the title's unit."""


def series_png(curve: Sequence[StepRecord]) -> bytes:
    """A PNG with one small plot for each figure that a step has besides its loss; what was not measured is left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [entry for entry in SERIES if any(getattr(record, entry[0]) is not None for record in curve)]
    figure = Figure(figsize=(8.0, 1.7 * -(-len(shown) // 2)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, title, factor) in enumerate(shown):
        axes = figure.add_subplot(-(-len(shown) // 2), 2, place + 1)
        points = [(record.step, value * factor) for record in curve if (value := getattr(record, name)) is not None]
        axes.plot(*zip(*points, strict=True), color=BLUE, linewidth=1)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def trend(values: np.ndarray) -> np.ndarray:  # (steps,)
    """Mean of each value and those before it, at most TREND_STEPS of them."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - TREND_STEPS)
    result: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return result
