"""The time series of a run: written line by line, read back, summed up, drawn."""

from dataclasses import replace
from pathlib import Path

import pytest

from embed_assets.training.curve import StepRecord, append_record, curve_figures, read_curve
from embed_assets.training.plot import loss_curve_png, series_png

FIRST = StepRecord(
    step=1, epoch=0.5, loss=2.0, gradient_norm=3.0, learning_rate=1e-3, samples_per_second=10.0,
    tokens_per_second=2000.0, padding_share=0.1, memory_bytes=1 << 30,
)  # fmt: skip
CURVE = [FIRST, replace(FIRST, step=2, gradient_norm=1.0, learning_rate=5e-4, memory_bytes=3 << 30, padding_share=0.3)]


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    for record in CURVE:
        append_record(path, record)
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert read_curve(path) == CURVE


def test_the_whole_run_in_a_few_figures() -> None:
    assert curve_figures(CURVE) == pytest.approx(
        {
            "gradient_norm": 2.0, "learning_rate": 1e-3, "tokens_per_second": 2000.0, "padding_share": 0.2,
            "memory_gib": 3.0,
        }
    )  # fmt: skip
    assert curve_figures([replace(record, mfu=0.25 * record.step) for record in CURVE])["mfu"] == 0.375


def test_pictures_of_every_series() -> None:
    pictures = [series_png(CURVE), series_png([replace(record, mfu=0.4) for record in CURVE]), loss_curve_png(CURVE)]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(pictures[1]) > len(pictures[0])  # a plot more
