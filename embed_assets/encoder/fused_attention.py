"""The attention block as both fused stacks use it: one matrix of queries, keys and values in, one gradient of it out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from embed_assets.encoder.fused_lora import LinearGroup

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Shape and kind of a model's attention."""

    query: int
    key_value: int
    dim: int
    causal: bool

    @property
    def columns(self) -> int:
        """Of queries, keys and values side by side."""
        return (self.query + 2 * self.key_value) * self.dim

    def of(self, attended: "Tensor") -> "Tensor":
        """The query heads (tokens, query heads, head_dim) of a matrix that has spare columns beside them."""
        return attended[:, : self.query * self.dim].unflatten(1, (self.query, self.dim))


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation:
    """Rotary positions of a packed row's tokens."""

    cos: "Tensor"
    """(tokens, head_dim / 2) float32"""
    sin: "Tensor"
    minus_sin: "Tensor"
    """For the way back."""


def rotation(rotary: Any, positions: "Tensor") -> Rotation:
    """Of a transformers rotary embedding; computed in float32, whatever the model's precision."""
    probe = torch.empty(0, dtype=torch.float32, device=positions.device)
    cos, sin = (values[0, :, : values.shape[-1] // 2].contiguous() for values in rotary(probe, positions[None]))
    return Rotation(cos=cos, sin=sin, minus_sin=-sin)


@dataclass(slots=True)
class Attended:
    """What the backward of one attention block needs of its forward."""

    qkv: "Tensor"  # (tokens, heads.columns)
    all_rows: "Tensor"  # (tokens, query heads * head_dim + rank)
    rows: "Tensor"  # (rows, query heads * head_dim + rank): the tokens that go on, low-rank products beside them
    state: Any


def attend(
    ops: Any,
    output: LinearGroup,
    qkv_: "Tensor",
    heads: Heads,
    turn: Rotation | None,
    documents: Any,
    only: "Tensor | None",
    *,
    keep: bool,
) -> tuple["Tensor", Attended]:  # (rows, dim)
    """Attention within each document and the projection after it; rotates queries and keys in place.

    Args:
        only: the tokens that go on; None: all.
        keep: whether a backward will follow.
    """
    attended = qkv_.new_empty(len(qkv_), output.inputs + output.low)
    state = ops.attend(*_split(qkv_, heads), heads.of(attended), documents, heads.causal, turn, keep)
    rows = attended if only is None else attended[only]
    output.lower(rows)
    return output.of_lowered(rows), Attended(qkv_, attended, rows, state)


def attend_backward(
    ops: Any,
    output: LinearGroup,
    qkv: LinearGroup,
    grad: "Tensor",  # (rows, dim + spare)
    kept: Attended,
    heads: Heads,
    turn: Rotation | None,
    documents: Any,
    only: "Tensor | None",
) -> tuple["Tensor", "Tensor"]:
    """From the gradient of the block's output to its own for all tokens, and to that of `qkv`, low-rank products beside it.

    Fills the output projection's gradients.
    """
    low = output.grad_low(grad)
    grad_rows = grad @ output.backward
    ops.product_into(output.grad_b, grad[:, : output.outputs].T, kept.rows[:, output.inputs :])
    ops.product_into(output.grad_a, low.T, kept.rows[:, : output.inputs])
    if only is not None:
        tokens = len(kept.qkv)
        grad_rows = grad_rows.new_zeros(tokens, output.inputs).index_copy_(0, only, grad_rows)
        grad = grad.new_zeros(tokens, grad.shape[1]).index_copy_(0, only, grad)
    attended = heads.of(kept.all_rows)
    grad_qkv: Tensor = ops.attend_backward(
        grad_rows, *_split(kept.qkv, heads), attended, kept.state, documents, heads.causal, turn, qkv.low
    )
    qkv.grad_low(grad_qkv)
    return grad, grad_qkv


def _split(qkv: "Tensor", heads: Heads) -> list["Tensor"]:
    """Views (tokens, heads, head_dim) of queries, keys and values."""
    sizes = [heads.query * heads.dim, heads.key_value * heads.dim, heads.key_value * heads.dim]
    return [part.unflatten(1, (-1, heads.dim)) for part in qkv.split(sizes, dim=1)]
