"""Attention as both fused stacks use it: one matrix of queries, keys and values in, one gradient of it out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

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


def attend(
    ops: Any, qkv_: "Tensor", heads: Heads, turn: Rotation | None, documents: Any
) -> tuple["Tensor", Any]:  # (tokens, query heads, head_dim)
    """Attention within each document; rotates queries and keys in place. Also what the backward needs."""
    if turn is not None:
        ops.rotate_(qkv_, turn.cos, turn.sin, heads.query + heads.key_value)
    attended, kept = ops.attend(*_split(qkv_, heads), documents, heads.causal)
    return attended, kept


def attend_backward(
    ops: Any,
    grad: "Tensor",  # (tokens, query heads * head_dim)
    qkv: "Tensor",
    attended: "Tensor",
    kept: Any,
    heads: Heads,
    turn: Rotation | None,
    documents: Any,
    spare: int,
) -> "Tensor":  # (tokens, heads.columns + spare)
    """Gradient of `qkv` as it was before `attend` rotated it."""
    joined: Tensor = ops.attend_backward(grad, *_split(qkv, heads), attended, kept, documents, heads.causal, spare)
    if turn is not None:
        ops.rotate_(joined, turn.cos, turn.minus_sin, heads.query + heads.key_value)
    return joined


def _split(qkv: "Tensor", heads: Heads) -> list["Tensor"]:
    """Views (tokens, heads, head_dim) of queries, keys and values."""
    sizes = [heads.query * heads.dim, heads.key_value * heads.dim, heads.key_value * heads.dim]
    return [part.unflatten(1, (-1, heads.dim)) for part in qkv.split(sizes, dim=1)]
