"""What is said of a training: a bar for who looks on, lines for the log, and not both on one terminal."""

import io
import logging

import pytest

from embed_assets.evaluation import progress
from embed_assets.training import report
from embed_assets.training.curve import StepRecord


def record(step: int) -> StepRecord:
    return StepRecord(
        step=step, epoch=0.5, loss=0.25, gradient_norm=1.0, learning_rate=1e-4, samples_per_second=30.0,
        tokens_per_second=3000.0, padding_share=0.0, memory_bytes=0,
    )  # fmt: skip


@pytest.mark.parametrize("looks_on", [True, False])
def test_a_bar_keeps_the_lines_of_steps_off_its_terminal(
    looks_on: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(report, "terminal", lambda: screen if looks_on else None)
    with caplog.at_level(logging.DEBUG, "embed_assets"), report.Reporter.for_this_process() as reporter:
        reporter.observe(record(1), 2)
        reporter.observe(record(2), 2)
    assert [line.levelno for line in caplog.records] == [logging.DEBUG if looks_on else logging.INFO] * 2
    assert "loss 0.250  30.0 samples/s" in caplog.messages[-1]
    assert ("loss 0.250" in screen.getvalue()) == looks_on


@pytest.mark.parametrize("looks_on", [True, False])
def test_an_evaluation_does_the_same_and_says_what_it_found(
    looks_on: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "terminal", lambda: io.StringIO() if looks_on else None)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.DEBUG, "embed_assets"), progress.Progress.for_this_process() as shown:
        shown.observe("embedding with base", 1, 2)
        shown.line("evaluated")
    levels = [logging.DEBUG if looks_on else logging.INFO, logging.INFO]
    assert [(line.levelno, line.message) for line in caplog.records] == [
        (levels[0], "embedding with base: 1 of 2"),
        (levels[1], "evaluated"),
    ]
