"""Gate and up projections and SwiGLU as one kernel, for encoding on Hopper: the widest states never reach memory.

Triton's matrix product is a sixth slower than the vendor's, and what it saves is a quarter: the states of 2 * 8,960 columns
are neither written nor read again. It leans on parts of Triton that are young (tensor descriptors, warp specialisation):
its first result is held against the plain products, and where it is not right the plain ones are used. Import it on
CUDA only. It knows nothing of adapters or gradients.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

TOKENS, COLUMNS, DEPTH, STAGES, WARPS, GROUP = 128, 128, 64, 3, 8, 8
"""Tile, pipeline and order of tiles: the fastest of those tried on an H100."""
FEWEST_TOKENS = 4096
"""Below it too few tiles fill the chip."""
TOLERANCE = 0.02
"""Largest relative difference from the plain products, which round the states to bfloat16 in between (0.003 seen)."""
logger = logging.getLogger(__name__)
_right: dict[tuple[int | None, int, int], bool] = {}


@triton.jit
def _gated(
    x, weight, out, tokens, width, depth,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUPED: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Each program takes every PROGRAMS-th tile; GROUPED rows of tiles go together, so that weights stay in the cache."""
    rows, columns = tl.cdiv(tokens, BM), tl.cdiv(width, BN)
    for tile in tl.range(tl.program_id(0), rows * columns, PROGRAMS, warp_specialize=True):
        first = tile // (GROUPED * columns) * GROUPED
        size = min(rows - first, GROUPED)
        m = first + tile % (GROUPED * columns) % size
        n = tile % (GROUPED * columns) // size
        gate = tl.zeros((BM, BN), dtype=tl.float32)
        up = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(tl.cdiv(depth, BK)):
            states = x.load([m * BM, k * BK])
            gate = tl.dot(states, weight.load([n * BN, k * BK]).T, gate)
            up = tl.dot(states, weight.load([width + n * BN, k * BK]).T, up)
        out.store([m * BM, n * BN], (gate * tl.sigmoid(gate) * up).to(tl.bfloat16))


def gated_product(
    x: "Tensor",  # (tokens, dim)
    weight: "Tensor",  # (2 * width, dim): gate, then up
    width: int,
    plain: "Callable[[], Tensor]",
) -> "Tensor | None":  # (tokens, width)
    """silu(x gate^T) * (x up^T); None where this kernel does not run or does not pay.

    Args:
        plain: the same by plain products, asked for once.
    """
    tokens, dim = x.shape
    if tokens < FEWEST_TOKENS or tokens % 16 or width % COLUMNS:
        return None
    key = (x.device.index, dim, width)
    if key not in _right:
        _right[key] = torch.cuda.get_device_capability(x.device) == (9, 0) and _agrees(x, weight, width, plain)
    return _run(x, weight, width) if _right[key] else None


def _agrees(x: "Tensor", weight: "Tensor", width: int, plain: "Callable[[], Tensor]") -> bool:
    try:
        found = _run(x, weight, width).float()
    except Exception as error:  # noqa: BLE001 - a compiler's; the plain products are as right
        logger.warning("no gated kernel: %s: %s", type(error).__name__, str(error).splitlines()[0])
        return False
    expected = plain().float()
    difference = float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))
    if difference <= TOLERANCE:
        return True
    logger.warning("no gated kernel: this version of Triton makes it wrong, by %.3f", difference)
    return False


def _run(x: "Tensor", weight: "Tensor", width: int) -> "Tensor":
    from triton.tools.tensor_descriptor import TensorDescriptor

    tokens, dim = x.shape
    out = x.new_empty(tokens, width)
    programs = torch.cuda.get_device_properties(x.device).multi_processor_count
    _gated[(programs,)](
        TensorDescriptor(x, [tokens, dim], [x.stride(0), 1], [TOKENS, DEPTH]),
        TensorDescriptor(weight, [2 * width, dim], [weight.stride(0), 1], [COLUMNS, DEPTH]),
        TensorDescriptor(out, [tokens, width], [width, 1], [TOKENS, COLUMNS]),
        tokens, width, dim, TOKENS, COLUMNS, DEPTH, GROUP, programs, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out
