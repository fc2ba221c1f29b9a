"""Dynamic batching: the rows of many requests to forward passes, fairly, in one worker thread.

It knows token rows and a function that turns rows into vectors; it knows neither HTTP nor where models come from.
One thread calls that function, so that no two passes ever run at once.

Fairness is start-time fair queueing over requests: each request carries a tag, the tokens served to it counted from
the moment it came; the smallest tag leads the next batch. A single input that arrives while 2,048 others are being
embedded therefore waits for the batch under way and not for the request, and a stream of single inputs does not
starve the large request either (Goyal, Vin and Cheng, "Start-time Fair Queueing", 1996).
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

SHORT_ROW = 32
"""Rows up to this many tokens always share a pass: its fixed cost outweighs their padding."""
MAX_PADDING = 1.5
"""A row joins a batch while padded tokens stay below so many times the real ones."""
MAX_RETRY_SECONDS = 60

logger = logging.getLogger(__name__)

Rows = Sequence[Sequence[int]]


class QueueFullError(RuntimeError):
    """The queue holds as much work as it may; `retry_after_seconds` says when there should be room."""

    def __init__(self, queued_tokens: int, allowed: int, retry_after_seconds: int) -> None:
        super().__init__(
            f"the queue holds {queued_tokens} tokens, allowed are {allowed}; retry in {retry_after_seconds} s"
        )
        self.retry_after_seconds = retry_after_seconds


class StoppedError(RuntimeError):
    """The service is stopping and takes no more work."""


class EncodeError(RuntimeError):
    """The model failed on these rows, or gave vectors that are not numbers."""


class RowEncoder(Protocol):
    """What a batch runs on; rows of two encoders never share one."""

    @property
    def dimension(self) -> int: ...

    @property
    def batch_tokens(self) -> int:
        """Tokens of one pass, padding included."""
        ...

    def encode_rows(self, rows: Rows) -> np.ndarray: ...  # (rows, dim) float32


@dataclass(eq=False)
class _Work:
    """One request in the queue."""

    encoder: RowEncoder
    rows: Rows
    tag: float
    """Virtual time at which its next row is due: arrival plus the tokens served to it since."""
    pending: deque[int]
    """Rows not yet in a batch, longest first, so that neighbours in a batch are of like length."""
    vectors: np.ndarray  # (rows, dim)
    future: "Future[np.ndarray]" = field(default_factory=Future)
    unfinished: int = 0

    @property
    def pending_tokens(self) -> int:
        return sum(len(self.rows[index]) for index in self.pending)


class Batcher:
    """A bounded queue and the thread that empties it."""

    def __init__(
        self,
        *,
        max_queued_tokens: int,
        prepare_thread: Callable[[], None] | None = None,
        observe_batch: Callable[[int, int, float], None] | None = None,
    ) -> None:
        """
        Args:
            max_queued_tokens: a request that would take the queue above it is refused, unless the queue is empty.
            prepare_thread: called first in the worker thread, which has thread-local settings of its own.
            observe_batch: called after each pass with its rows, tokens and seconds.
        """
        self.max_queued_tokens = max_queued_tokens
        self._prepare_thread = prepare_thread
        self._observe_batch = observe_batch
        self._works: list[_Work] = []
        self._virtual_time = 0.0
        self._queued_tokens = 0
        self._tokens_per_second = 0.0
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def queued_tokens(self) -> int:
        return self._queued_tokens

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopped

    def submit(self, encoder: RowEncoder, rows: Rows) -> "Future[np.ndarray]":  # (rows, dim) float32
        """Queues the rows of one request. Cancelling the future drops the rows that no batch holds yet.

        Raises:
            QueueFullError: there is no room for so many tokens now.
            StoppedError: the service is stopping.
        """
        tokens = sum(map(len, rows))
        order = deque(sorted(range(len(rows)), key=lambda index: -len(rows[index])))
        vectors = np.empty((len(rows), encoder.dimension), dtype=np.float32)
        with self._changed:
            if self._stopped or not self._thread.is_alive():
                raise StoppedError("the service is stopping and takes no more requests")
            self._drop_cancelled()
            if self._queued_tokens and self._queued_tokens + tokens > self.max_queued_tokens:
                raise QueueFullError(self._queued_tokens, self.max_queued_tokens, self._retry_after())
            work = _Work(encoder, rows, self._virtual_time, order, vectors, unfinished=len(rows))
            self._works.append(work)
            self._queued_tokens += tokens
            self._changed.notify()
        return work.future

    def stop(self) -> None:
        """Ends the worker after its pass; whatever is queued still fails with StoppedError."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        if self._prepare_thread is not None:
            self._prepare_thread()
        while True:
            with self._changed:
                while not self._works and not self._stopped:
                    self._changed.wait()
                works = self._works
                if self._stopped:
                    self._works = []
                    break
                batch = self._next_batch()
            if batch:
                self._encode(batch)
        for work in works:
            _fail(work, StoppedError("the service stopped before this request was answered"))

    def _next_batch(self) -> list[tuple[_Work, int]]:
        """Takes the next rows off the queue: the most deserving request leads, rows of like length join.

        Held by the lock. Empty when all that was queued has been cancelled.
        """
        self._drop_cancelled()
        if not self._works:
            return []
        queue = sorted(self._works, key=lambda work: work.tag)
        encoder = queue[0].encoder
        batch: list[tuple[_Work, int]] = []
        longest = tokens = 0
        for work in queue:
            if work.encoder is not encoder:
                continue
            while work.pending:
                length = len(work.rows[work.pending[0]])
                padded = max(longest, length) * (len(batch) + 1)
                alike = max(longest, length) <= SHORT_ROW or padded <= MAX_PADDING * (tokens + length)
                if batch and (padded > encoder.batch_tokens or not alike):
                    break
                batch.append((work, work.pending.popleft()))
                work.tag += length
                longest, tokens = max(longest, length), tokens + length
        self._virtual_time += tokens / len(self._works)
        self._queued_tokens -= tokens
        self._works = [work for work in self._works if work.pending]
        return batch

    def _encode(self, batch: list[tuple[_Work, int]]) -> None:
        """One pass. If it fails, each request's rows run alone, so that one request cannot fail another."""
        started = time.monotonic()
        rows = [work.rows[index] for work, index in batch]
        try:
            vectors = batch[0][0].encoder.encode_rows(rows)
            if not np.isfinite(vectors).all():
                raise EncodeError("the model gave vectors that are not finite")
        except Exception as error:
            works = {id(work): work for work, _ in batch}
            if len(works) > 1:
                for alone in works.values():
                    self._encode([(work, index) for work, index in batch if work is alone])
                return
            logger.exception("a batch of %d rows failed", len(rows))
            self._give_up(batch[0][0], error)
            return
        for (work, index), vector in zip(batch, vectors, strict=True):
            work.vectors[index] = vector
            work.unfinished -= 1
            if work.unfinished == 0 and work.future.set_running_or_notify_cancel():
                work.future.set_result(work.vectors)
        self._measure(sum(map(len, rows)), len(rows), time.monotonic() - started)

    def _give_up(self, work: _Work, error: Exception) -> None:
        with self._changed:
            self._queued_tokens -= work.pending_tokens
            work.pending.clear()
            self._works = [other for other in self._works if other is not work]
        failure = error if isinstance(error, EncodeError) else EncodeError(f"the model failed: {error}")
        _fail(work, failure)

    def _measure(self, tokens: int, rows: int, seconds: float) -> None:
        rate = tokens / max(seconds, 1e-6)
        self._tokens_per_second = 0.8 * self._tokens_per_second + 0.2 * rate if self._tokens_per_second else rate
        if self._observe_batch is not None:
            self._observe_batch(rows, tokens, seconds)

    def _drop_cancelled(self) -> None:
        for work in self._works:
            if work.future.cancelled():
                self._queued_tokens -= work.pending_tokens
                work.pending.clear()
        self._works = [work for work in self._works if work.pending]

    def _retry_after(self) -> int:
        if not self._tokens_per_second:
            return 1
        return min(MAX_RETRY_SECONDS, max(1, math.ceil(self._queued_tokens / self._tokens_per_second)))


def _fail(work: _Work, error: Exception) -> None:
    if not work.future.cancelled() and work.future.set_running_or_notify_cancel():
        work.future.set_exception(error)
