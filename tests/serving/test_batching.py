"""The queue with a made-up encoder: fairness, limits, cancellation, isolation of failures."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest

from embed_assets.serving.batching import Batcher, EncodeError, QueueFullError, StoppedError


class Recorder:
    """Each row's vector is its first token; passes are recorded, and wait for `gate` where it is closed."""

    dimension = 1
    batch_tokens = 100

    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.lengths: list[list[int]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()

    def encode_rows(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        self.started.set()
        self.threads.add(threading.get_ident())
        self.passes.append([row[0] for row in rows])
        self.lengths.append([len(row) for row in rows])
        assert self.gate.wait(60)
        if any(row[0] == -1 for row in rows):
            raise RuntimeError("bad row")
        return np.array([[np.nan if row[0] == -2 else row[0]] for row in rows], dtype=np.float32)


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    batcher = Batcher(max_queued_tokens=10_000)
    yield batcher
    batcher.stop()


@pytest.fixture
def encoder() -> Recorder:
    return Recorder()


def row(first: int, length: int) -> list[int]:
    return [first] + [0] * (length - 1)


def closed(batcher: Batcher, encoder: Recorder) -> None:
    """Keeps the worker busy, so that what is submitted next queues up."""
    encoder.gate.clear()
    batcher.submit(encoder, [row(0, 100)])
    assert encoder.started.wait(60)
    encoder.passes.clear()
    encoder.lengths.clear()


def test_vectors_come_back_in_the_order_of_the_rows(batcher: Batcher, encoder: Recorder) -> None:
    rows = [row(index, 1 + (index * 37) % 90) for index in range(50)]
    assert batcher.submit(encoder, rows).result(60)[:, 0].tolist() == list(range(50))
    assert len(encoder.threads) == 1


def test_no_pass_is_larger_than_its_budget_nor_mostly_padding(batcher: Batcher, encoder: Recorder) -> None:
    batcher.submit(encoder, [row(1, 1 + (index * 37) % 100) for index in range(200)]).result(60)
    for lengths in encoder.lengths:
        assert max(lengths) * len(lengths) <= 100
        assert max(lengths) <= 32 or max(lengths) * len(lengths) <= 1.5 * sum(lengths)


def test_waiting_single_inputs_share_a_pass(batcher: Batcher, encoder: Recorder) -> None:
    closed(batcher, encoder)
    futures = [batcher.submit(encoder, [row(index, 10)]) for index in range(1, 9)]
    encoder.gate.set()
    assert [future.result(60)[0, 0] for future in futures] == list(range(1, 9))
    assert encoder.passes == [list(range(1, 9))]


def test_a_large_request_does_not_starve_a_single_input(batcher: Batcher, encoder: Recorder) -> None:
    closed(batcher, encoder)
    large = batcher.submit(encoder, [row(1, 50)] * 100)
    encoder.gate.set()
    while len(encoder.passes) < 3:
        time.sleep(0.0001)
    encoder.gate.clear()
    before = len(encoder.passes)
    single = batcher.submit(encoder, [row(7, 5)])
    encoder.gate.set()
    single.result(60)
    large.result(60)
    position = next(index for index, batch in enumerate(encoder.passes) if 7 in batch)
    assert position <= before + 1, "the single input runs after the pass under way, not after the request"


def test_single_inputs_do_not_starve_a_large_request(batcher: Batcher, encoder: Recorder) -> None:
    """Three clients that ask again as soon as they are answered: the large request still gets its quarter."""
    closed(batcher, encoder)
    large = batcher.submit(encoder, [row(1, 90)] * 10)

    def ask(_: "Future[np.ndarray] | None" = None) -> None:
        if not large.done() and len(encoder.passes) < 400:
            batcher.submit(encoder, [row(7, 90)]).add_done_callback(ask)

    for _ in range(3):
        ask()
    encoder.gate.set()
    large.result(60)
    assert 20 <= max(index for index, batch in enumerate(encoder.passes) if 1 in batch) <= 60


def test_rows_of_two_encoders_never_share_a_pass(batcher: Batcher) -> None:
    first, second = Recorder(), Recorder()
    closed(batcher, first)
    futures = [batcher.submit(first if index % 2 else second, [row(index, 5)]) for index in range(10)]
    first.gate.set()
    assert [future.result(60)[0, 0] for future in futures] == list(range(10))
    assert all(value % 2 for batch in first.passes for value in batch)
    assert not any(value % 2 for batch in second.passes for value in batch)


def test_a_full_queue_refuses_and_says_when_to_come_back(encoder: Recorder) -> None:
    batcher = Batcher(max_queued_tokens=150)
    closed(batcher, encoder)
    batcher.submit(encoder, [row(1, 100)])
    with pytest.raises(QueueFullError, match="100 tokens, allowed are 150") as refused:
        batcher.submit(encoder, [row(2, 51)])
    assert refused.value.retry_after_seconds >= 1
    small = batcher.submit(encoder, [row(3, 50)])
    encoder.gate.set()
    assert small.result(60)[0, 0] == 3
    batcher.stop()


def test_an_empty_queue_takes_a_request_of_any_size(encoder: Recorder) -> None:
    batcher = Batcher(max_queued_tokens=10)
    assert batcher.submit(encoder, [row(5, 90)]).result(60)[0, 0] == 5
    batcher.stop()


def test_a_cancelled_request_leaves_the_queue(batcher: Batcher, encoder: Recorder) -> None:
    closed(batcher, encoder)
    cancelled = batcher.submit(encoder, [row(9, 50)] * 20)
    kept = batcher.submit(encoder, [row(1, 50)])
    assert batcher.queued_tokens == 1050
    assert cancelled.cancel()
    encoder.gate.set()
    assert kept.result(60)[0, 0] == 1
    with pytest.raises(CancelledError):
        cancelled.result(1)
    assert not any(9 in batch for batch in encoder.passes)
    assert batcher.queued_tokens == 0


@pytest.mark.parametrize("bad", [-1, -2])
def test_a_request_that_fails_does_not_fail_its_neighbours(batcher: Batcher, encoder: Recorder, bad: int) -> None:
    closed(batcher, encoder)
    good, failing = batcher.submit(encoder, [row(4, 10)]), batcher.submit(encoder, [row(bad, 10)])
    encoder.gate.set()
    assert good.result(60)[0, 0] == 4
    with pytest.raises(EncodeError):
        failing.result(60)
    assert batcher.submit(encoder, [row(6, 10)]).result(60)[0, 0] == 6
    assert batcher.queued_tokens == 0


def test_stopping_fails_what_is_queued(encoder: Recorder) -> None:
    batcher = Batcher(max_queued_tokens=1000)
    closed(batcher, encoder)
    queued = batcher.submit(encoder, [row(1, 10)])
    threading.Timer(0.05, encoder.gate.set).start()
    batcher.stop()
    with pytest.raises(StoppedError):
        queued.result(1)
    with pytest.raises(StoppedError):
        batcher.submit(encoder, [row(1, 10)])
    assert not batcher.alive
