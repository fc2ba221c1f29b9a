"""Token rows to vectors on a CPU, without gradients: the flat path's faster half.

Weights are laid out once as oneDNN likes them best: its products in float32 use the widest vectors that any x86 CPU
has, where torch's own library leaves half of them idle on AMD's. Bias, gelu and the residual are added on the way.
"""

import platform
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from embed_assets.encoder.flat import (
    FlatRows,
    WeightState,
    adapter_of,
    base_of,
    embedding_block,
    flatten,
    linear_groups,
    norms,
    pool_rows,
    transformer_of,
)
from embed_assets.encoder.workers import worker_count

if TYPE_CHECKING:
    from torch import Tensor

    from embed_assets.encoder.encoder import Encoder

PREPARED_FOR_TOKENS = 1024
"""oneDNN chooses a layout for so many tokens; others work as well."""

SMALLEST_BATCH = 128
"""Tokens; less is not worth a worker."""

_stacks: "weakref.WeakKeyDictionary[Any, tuple[WeightState, EncodingStack]]" = weakref.WeakKeyDictionary()
_building = threading.Lock()


@cache
def has_prepared_products() -> bool:
    """Whether this torch has oneDNN's products with weights laid out beforehand; only x86 gains by them."""
    there = bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and platform.machine() in ("x86_64", "AMD64")


class Product:
    """x W' + b, with gelu or a residual on the way."""

    def __init__(self, linears: Sequence[Any]) -> None:
        weight = torch.cat([_effective_weight(linear) for linear in linears])
        biases = [base_of(linear).bias for linear in linears]
        self.bias = None if biases[0] is None else torch.cat([bias.detach() for bias in biases])
        self._prepared = has_prepared_products()
        reorder = torch.ops.mkldnn._reorder_linear_weight
        self.weight = reorder(weight, PREPARED_FOR_TOKENS) if self._prepared else weight

    def plain(self, x: "Tensor") -> "Tensor":
        if self._prepared:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return y
        return functional.linear(x, self.weight, self.bias)

    def gelu(self, x: "Tensor") -> "Tensor":
        if self._prepared:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")
            return y
        return functional.gelu(functional.linear(x, self.weight, self.bias))

    def plus(self, x: "Tensor", residual: "Tensor") -> "Tensor":
        if self._prepared:
            y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
            return y
        return functional.linear(x, self.weight, self.bias).add_(residual)


def _effective_weight(linear: Any) -> "Tensor":
    weight: Tensor = base_of(linear).weight.detach()
    adapter = adapter_of(linear)
    if adapter is None:
        return weight
    a, b, scale = adapter
    return torch.addmm(weight, b.detach(), a.detach(), alpha=scale)


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Product
    output: Product
    up: Product
    down: Product
    norm: Any
    mlp_norm: Any


class EncodingStack:
    """A model's layers, adapters merged, ready to encode. Used by many threads at once; it never changes."""

    def __init__(self, model: Any) -> None:
        self._model = weakref.proxy(model)
        self.heads = int(model.config.num_attention_heads)
        pairs = zip(linear_groups(model), norms(model), strict=True)
        self._layers = [
            _Layer(**{name: Product(linears) for name, linears in groups.items()}, norm=norm, mlp_norm=mlp_norm)
            for groups, (norm, mlp_norm) in pairs
        ]

    def embed(self, rows: Sequence[Sequence[int]], pooling: str) -> "Tensor":  # (rows, dim) float32, unit rows
        with torch.inference_mode():
            flat = flatten(rows)
            x = embedding_block(self._model, flat)  # (tokens, dim)
            for layer in self._layers:
                attended = _attend(layer.qkv.plain(x), flat, self.heads)
                x = _normed(layer.output.plus(attended, x), layer.norm)
                x = _normed(layer.down.plus(layer.up.gelu(x), x), layer.mlp_norm)
            return functional.normalize(pool_rows(x, flat, pooling), dim=-1)


def encoding_stack(encoder: "Encoder") -> EncodingStack:
    """The encoder's layers as they are now; prepared again when a weight was changed or an adapter moved."""
    model = transformer_of(encoder)
    state = WeightState.of(model)
    with _building:
        known = _stacks.pop(model, None)
        if known is None or not state.unchanged(known[0]):
            known = None  # freed before the new one is built: it is as large as the layers
            with torch.inference_mode(False), torch.no_grad():
                known = (state, EncodingStack(model))
        _stacks[model] = known
        return known[1]


def drop_encoding_stack(encoder: "Encoder") -> None:
    """Frees the prepared layers; the next encoding prepares them again."""
    _stacks.pop(transformer_of(encoder), None)


def flat_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Row numbers in batches of at most `batch_tokens` tokens, longest first, and enough of them for all workers."""
    share = -(-sum(lengths) // worker_count())
    budget = min(batch_tokens, max(SMALLEST_BATCH, share))
    batches: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if not batches or tokens + lengths[index] > budget:
            batches.append([])
            tokens = 0
        batches[-1].append(index)
        tokens += lengths[index]
    return batches


def _normed(x: "Tensor", norm: Any) -> "Tensor":
    return functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _attend(qkv: "Tensor", rows: FlatRows, heads: int) -> "Tensor":  # (tokens, 3 * dim) -> (tokens, dim)
    dim = qkv.shape[1] // 3
    attended = qkv.new_empty(len(qkv), dim)
    end = 0
    for first, count, length in rows.groups:
        end = first + count * length
        block = qkv[first:end].view(count, length, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(block[0], block[1], block[2])  # (count, heads, length, head)
        attended[first:end].view(count, length, heads, dim // heads).copy_(mixed.transpose(1, 2))
    attended[end:] = 0.0
    return attended
