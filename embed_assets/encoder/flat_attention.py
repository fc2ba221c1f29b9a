"""Attention over rows end to end, row by row, with its gradient: what is kept are the weights, in the products' type.

torch's own attention recomputes the weights in its backward, which takes three times as long for rows of a few
hundred tokens. Softmax is taken in float32 in any case.
"""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from embed_assets.encoder.flat import FlatRows


def attend(
    qkv: "Tensor",  # (tokens, 3 * dim)
    rows: "FlatRows",
    heads: int,
    out: "Tensor",  # (tokens, dim), filled
) -> "list[Tensor]":
    """Writes each row's mixed values into `out` and returns the weights, (rows * heads, length, length) per group."""
    dim = out.shape[1] // heads
    none = qkv.new_zeros(1, 1, 1)
    kept = []
    end = 0
    for first, count, length in rows.groups:
        end = first + count * length
        q, k, v = _by_head(qkv[first:end], count, length, heads, dim)
        scores = torch.baddbmm(none, q, k.transpose(1, 2), beta=0, alpha=dim**-0.5)
        weights = torch.softmax(scores.float(), dim=-1).to(qkv.dtype)  # (count * heads, length, length)
        _rows_of(out[first:end], count, length, heads, dim).copy_(
            torch.bmm(weights, v).view(count, heads, length, dim).transpose(1, 2)
        )
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
        end = first + count * length
        weights, kept[number] = kept[number], none
        (mixed,) = _by_head(gradient[first:end], count, length, heads, dim)
        q, k, v = _by_head(qkv[first:end], count, length, heads, dim)
        grad_weights = torch.bmm(mixed, v.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, qkv.dtype)
        of_values = torch.bmm(weights.transpose(1, 2), mixed)
        of_queries = torch.baddbmm(none, grad_scores, k, beta=0, alpha=scale)
        of_keys = torch.baddbmm(none, grad_scores.transpose(1, 2), q, beta=0, alpha=scale)
        block = found[first:end].view(count, length, 3, heads, dim)
        for place, part in enumerate((of_queries, of_keys, of_values)):
            block[:, :, place].copy_(part.view(count, heads, length, dim).transpose(1, 2))
    found[end:] = 0.0
    return found


def _by_head(states: "Tensor", count: int, length: int, heads: int, dim: int) -> "tuple[Tensor, ...]":
    """(count * length, parts * heads * dim) -> parts of (count * heads, length, dim); a view when there is one row."""
    parts = states.shape[1] // (heads * dim)
    block = torch.unflatten(torch.unflatten(states, 1, (parts, heads, dim)), 0, (count, length))
    split = block.permute(2, 0, 3, 1, 4)
    return tuple(split[part].reshape(count * heads, length, dim) for part in range(parts))


def _rows_of(states: "Tensor", count: int, length: int, heads: int, dim: int) -> "Tensor":
    """(count * length, heads * dim) -> (count, length, heads, dim), a view."""
    return torch.unflatten(torch.unflatten(states, 1, (heads, dim)), 0, (count, length))
