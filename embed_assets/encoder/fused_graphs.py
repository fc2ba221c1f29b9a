"""CUDA graphs of a fused stack's forward and backward, for batches whose kernels run shorter than their launches take.

One pair of graphs per shape of packed row, so rows are padded to coarser multiples, and documents to multiples of 16.
The activations of all graphs share one memory pool: a forward's are overwritten by the next forward, so while a backward
is outstanding every other forward runs without a graph. Recording waits for nothing: the host, a step ahead of the
device, records a new shape while the device computes the step before. It knows nothing of pooling, normalising or losses.
"""

import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from embed_assets.encoder.packing import MULTIPLE, PackedRows

if TYPE_CHECKING:
    from torch import Tensor

LAUNCH_BOUND = 9e11
"""Tokens times weights of one layer below which a graph pays: about 5 ms of GPU time a layer, forward and backward."""
MOST_GRAPHS = 32
DOCUMENTS_MULTIPLE = 16
PADDING_SHARE = 12
"""A multiple is at most this part of the tokens: half of it is wasted on average, 2 to 4%."""
WORTH_GIVING_BACK = 256 << 20
"""Bytes that others left in the allocator, from which on they are given back before a graph is recorded."""


logger = logging.getLogger(__name__)


class Lease:
    """Held by whoever will run the backward; while it lives, the graphs' memory is not to be overwritten."""


@dataclass(slots=True)
class _Captured:
    packed: PackedRows
    forward: Any
    hidden: "Tensor"
    backward: Any
    grad: "Tensor"


class GraphCache:
    """The graphs of one stack on one device."""

    def __init__(self, stack: Any) -> None:
        self._stack = weakref.proxy(stack)
        self._captured: dict[tuple[Any, ...], _Captured] = {}
        self._warm: set[str] = set()
        self._most = MOST_GRAPHS
        self._pool: Any = None
        self._stream: Any = None
        self._unused = 0
        """Bytes that the allocator held and nobody used, after the last recording: mostly the graphs' memory."""
        self._lease: weakref.ref[Lease] | None = None

    @property
    def free(self) -> bool:
        """Whether no backward is outstanding."""
        return self._lease is None or self._lease() is None

    def forward(self, packed: PackedRows, pooling: str, recomputed: int) -> tuple["Tensor", Any, Lease] | None:
        """Hidden states, a key for `backward` and the lease; None where this forward is to run without a graph.

        The first one runs without: it compiles the kernels, which are the same for all shapes.
        """
        if not self.free:
            return None
        key = (len(packed.token_ids), len(packed.boundaries), packed.longest, pooling, recomputed)
        if key not in self._captured:
            if pooling not in self._warm or len(self._captured) >= self._most:
                self._warm.add(pooling)
                return None
            try:
                self._captured[key] = self._capture(packed, pooling, recomputed)
            except RuntimeError as error:
                self._most = len(self._captured)
                logger.warning("no more CUDA graphs, the other batches run without: %s", str(error).splitlines()[0])
                return None
        graphs = self._captured[key]
        for name in ("token_ids", "positions", "boundaries"):
            getattr(graphs.packed, name).copy_(getattr(packed, name))
        graphs.forward.replay()
        lease = Lease()
        self._lease = weakref.ref(lease)
        return graphs.hidden[: _read(packed, pooling)].clone(), key, lease

    def backward(self, key: Any, grad: "Tensor") -> None:
        """Runs the backward that belongs to the outstanding forward."""
        graphs = self._captured[key]
        graphs.grad[: len(grad)].copy_(grad)
        graphs.grad[len(grad) :].zero_()
        graphs.backward.replay()
        self._lease = None

    def _capture(self, packed: PackedRows, pooling: str, recomputed: int) -> _Captured:
        static = replace(
            packed,
            rows=-(-packed.rows // DOCUMENTS_MULTIPLE) * DOCUMENTS_MULTIPLE,
            token_ids=packed.token_ids.clone(),
            positions=packed.positions.clone(),
            boundaries=packed.boundaries.clone(),
        )
        self._give_back()
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with self._recording(forward):
            hidden, tape = self._stack.forward(static, pooling, keep=True, recomputed=recomputed)
        grad = torch.zeros_like(hidden)
        with self._recording(backward):
            self._stack.backward(tape, grad)
        self._unused = _unused_bytes()
        return _Captured(static, forward, hidden, backward, grad)

    def _give_back(self) -> None:
        """Frees what forwards without a graph held: the graphs' memory is apart, and while one is recorded none is freed."""
        if _unused_bytes() - self._unused > WORTH_GIVING_BACK:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    @contextmanager
    def _recording(self, graph: Any) -> Iterator[None]:
        """As `torch.cuda.graph`, which waits for the device first and empties the allocator's cache.

        Relaxed: a shape of its own may load a matrix product's kernel for the first time, which is no work to record.
        """
        self._stream = self._stream or torch.cuda.Stream()
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="relaxed")
            try:
                yield
            finally:
                graph.capture_end()
        self._pool = self._pool or graph.pool()


def _unused_bytes() -> int:
    return torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def _read(packed: PackedRows, pooling: str) -> int:
    """Hidden states that pooling reads: all tokens', or one of each document that is no dummy."""
    return len(packed.token_ids) if pooling == "mean" else packed.rows


def graph_multiple(tokens: int, layer_weights: int) -> int | None:
    """To what multiple such a row is padded for a graph; None where a graph does not pay."""
    if tokens * layer_weights > LAUNCH_BOUND:
        return None
    return max(MULTIPLE, 1 << (tokens // PADDING_SHARE).bit_length() - 1 if tokens >= PADDING_SHARE else MULTIPLE)
