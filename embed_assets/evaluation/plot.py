"""A recall report as a picture: recall before and after, and the change query by query."""

import io
from typing import Any

import numpy as np

from embed_assets.evaluation.metrics import mean_recall, reciprocal_rank
from embed_assets.records import BASE, RecallReport, SliceReport

DEPTHS = (1, 2, 3, 5, 10, 20, 50)
GREY, BLUE, RED = "#9aa0a6", "#1a73e8", "#d93025"


def recall_plot(report: RecallReport) -> bytes:
    """A PNG: one column a slice (masked ones left out), recall by depth above, gains of single queries below.

    It draws without a display and leaves no figure behind.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = [part for part in report.slices if not part.name.endswith("_masked")]
    figure = Figure(figsize=(4.2 * max(1, len(parts)), 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, max(1, len(parts)), squeeze=False)
    for column, part in enumerate(parts):
        _draw_recall(axes[0, column], part, report)
        _draw_gains(axes[1, column], part)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def _draw_recall(axes: Any, part: SliceReport, report: RecallReport) -> None:
    live = f"live ({report.live_id})" if report.live_id != BASE else f"live (base {report.base_model})"
    places = np.arange(len(DEPTHS))
    for system, label, colour in (("bm25", "BM25", RED), ("live", live, GREY), ("candidate", "candidate", BLUE)):
        if system in part.ranks:
            style = ":" if system == "bm25" else "-"
            shares = [100 * mean_recall(part.ranks[system], depth) for depth in DEPTHS]
            axes.plot(places, shares, marker="o", markersize=4, color=colour, linestyle=style, label=label)
    axes.set_xticks(places, [str(depth) for depth in DEPTHS])
    axes.set_title(f"{part.name}: {len(part.query_ids):,} queries, {part.corpus_size:,} functions", fontsize=10)
    axes.set_xlabel("results read")
    axes.set_ylabel("recall, %")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")


def _draw_gains(axes: Any, part: SliceReport) -> None:
    """One thin bar a query, best first: what rose lies above the line, what fell below it."""
    gains = np.sort(reciprocal_rank(part.ranks["candidate"]) - reciprocal_rank(part.ranks["live"]))[::-1]
    places = np.arange(len(gains))
    axes.fill_between(places, gains, 0, where=gains > 0, step="mid", color=BLUE)
    axes.fill_between(places, gains, 0, where=gains < 0, step="mid", color=RED)
    axes.axhline(0, color="black", linewidth=0.6)
    rose, fell = int((gains > 0).sum()), int((gains < 0).sum())
    axes.set_title(f"{rose:,} rose, {fell:,} fell, {len(gains) - rose - fell:,} unchanged", fontsize=10)
    axes.set_xlabel("queries, best gain first")
    axes.set_ylabel("change of reciprocal rank@10")
    axes.set_ylim(-1.05, 1.05)
    axes.grid(alpha=0.3)
