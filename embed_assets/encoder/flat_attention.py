"""Attention over rows end to end, row by row, with its gradient: what is kept are the weights, in the products' type.

torch's own attention recomputes the weights in its backward, which takes three times as long for rows of a few
hundred tokens. Softmax is taken in float32 in any case. A row is looked at together with the tokens after it that fill
it up to a multiple, with weights of zero: oneDNN prepares a kernel for every new length, which would be one a row.
"""

from typing import TYPE_CHECKING

import torch

from embed_assets.encoder.flat import MULTIPLE

if TYPE_CHECKING:
    from torch import Tensor

    from embed_assets.encoder.flat import FlatRows


def attend(
    qkv: "Tensor",  # (tokens, 3 * dim)
    rows: "FlatRows",
    heads: int,
    out: "Tensor",  # (tokens, dim), filled
) -> "list[Tensor]":
    """Writes each row's mixed values into `out` and returns the weights, (rows * heads, filled, filled) per group.

    After the last row there must be `MULTIPLE - 1` spare tokens.
    """
    dim = out.shape[1] // heads
    none = qkv.new_zeros(1, 1, 1)
    kept = []
    end = 0
    for first, count, length in rows.groups:
        q, k, v = _by_head(qkv, first, count, length, heads, dim)
        scores = torch.baddbmm(none, q, k.transpose(1, 2), beta=0, alpha=dim**-0.5)
        scores = scores.float()
        if length % MULTIPLE:
            scores[:, :, length:] = float("-inf")
        weights = torch.softmax(scores, dim=-1).to(qkv.dtype)  # (count * heads, filled, filled)
        if length % MULTIPLE:
            weights[:, length:] = 0.0
        end = first + count * length
        _put(torch.bmm(weights, v), out, first, count, length)
        kept.append(weights)
    out[end:] = 0.0
    return kept


def attend_backward(
    gradient: "Tensor",  # (tokens, dim) of what `attend` wrote
    qkv: "Tensor",  # (tokens, 3 * dim)
    kept: "list[Tensor]",
    rows: "FlatRows",
    heads: int,
) -> "Tensor":  # (tokens, 3 * dim)
    """The gradient of queries, keys and values. `kept` is used up."""
    dim = gradient.shape[1] // heads
    found = torch.empty_like(qkv)
    scale = dim**-0.5
    none = qkv.new_zeros(1, 1, 1)
    end = 0
    for number, (first, count, length) in enumerate(rows.groups):
        weights, kept[number] = kept[number], none
        (mixed,) = _by_head(gradient, first, count, length, heads, dim)
        q, k, v = _by_head(qkv, first, count, length, heads, dim)
        of_weights = torch.bmm(mixed, v.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, qkv.dtype)
        parts = (
            torch.baddbmm(none, of_scores, k, beta=0, alpha=scale),
            torch.baddbmm(none, of_scores.transpose(1, 2), q, beta=0, alpha=scale),
            torch.bmm(weights.transpose(1, 2), mixed),
        )
        for place, part in enumerate(parts):
            _put(part, found, first, count, length, place)
        end = first + count * length
    found[end:] = 0.0
    return found


def _by_head(states: "Tensor", first: int, count: int, length: int, heads: int, dim: int) -> "list[Tensor]":
    """(tokens, parts * heads * dim) -> parts of (count * heads, filled, dim); a view when there is one row."""
    filled = -(-length // MULTIPLE) * MULTIPLE
    step = states.stride(0)
    start = states.storage_offset() + first * step
    offsets = [start + part * heads * dim for part in range(states.shape[1] // (heads * dim))]
    if count == 1:
        return [states.as_strided((heads, filled, dim), (dim, step, 1), offset) for offset in offsets]
    shape, strides = (count, heads, filled, dim), (length * step, dim, step, 1)
    return [states.as_strided(shape, strides, offset).reshape(count * heads, filled, dim) for offset in offsets]


def _put(states: "Tensor", into: "Tensor", first: int, count: int, length: int, part: int = 0) -> None:
    """Writes (count * heads, filled, dim), without what fills up, to one group's rows of `into`."""
    heads, dim = states.shape[0] // count, states.shape[2]
    step = into.stride(0)
    offset = into.storage_offset() + first * step + part * heads * dim
    if count == 1:
        into.as_strided((heads, length, dim), (dim, step, 1), offset).copy_(states[:, :length])
        return
    rows = states.view(count, heads, -1, dim)[:, :, :length]
    into.as_strided((count, heads, length, dim), (length * step, dim, step, 1), offset).copy_(rows)
