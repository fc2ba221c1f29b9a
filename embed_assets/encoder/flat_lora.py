"""BERT and XLM-R with LoRA on a CPU, forward and backward written out: the flat path's trained half.

Every product with a frozen weight carries its adapter along: y = [x, x A'] [W, s B]' + b, one product of slightly
more columns. With bfloat16 these run twice as fast on CPUs that have it; the residual, norms, softmax and the
adapter's masters stay in float32. A step's rows are divided among the cores, and gradients are summed in a fixed order.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from embed_assets.encoder.flat import (
    MULTIPLE,
    FlatRows,
    WeightState,
    adapter_of,
    base_of,
    embedding_block,
    filled_tokens,
    flatten,
    linear_groups,
    norms,
    pool_rows,
    spread_gradient,
    transformer_of,
)
from embed_assets.encoder.flat_attention import attend, attend_backward
from embed_assets.encoder.workers import in_workers, worker_count

if TYPE_CHECKING:
    from torch import Tensor

    from embed_assets.encoder.encoder import Encoder

PART_TOKENS = 1536
"""Tokens that one core works on at a time: more leave its caches."""
SPARE_TOKENS = MULTIPLE - 1
"""Filling after a part's last row: attention fills rows up."""
ATTENTION_TOKENS = 300
"""At this length of a row attention costs as much as all other work on it."""


class LoraGroup:
    """Linear layers with one input, adapters included, as one product."""

    def __init__(self, linears: Sequence[Any], dtype: torch.dtype) -> None:
        bases = [base_of(linear) for linear in linears]
        found = [adapter_of(linear) for linear in linears]
        self.inputs = int(bases[0].in_features)
        self.rank = sum(len(adapter[0]) for adapter in found if adapter is not None)
        self.outputs = sum(int(base.out_features) for base in bases)
        self.weight = torch.zeros(self.outputs, self.inputs + self.rank, dtype=dtype)
        self.weight[:, : self.inputs] = torch.cat([base.weight.detach() for base in bases])
        biased = bases[0].bias is not None
        self.bias = torch.cat([base.bias.detach() for base in bases]).to(dtype) if biased else None
        self.down = torch.zeros(self.rank, self.inputs, dtype=dtype)  # A of all adapters
        self.adapters: list[tuple[Tensor, Tensor, float, slice, slice]] = []
        """A, B, scale, rows of the output, rows of `down`"""
        row = rank = 0
        for base, adapter in zip(bases, found, strict=True):
            if adapter is not None:
                a, b, scale = adapter
                self.adapters.append((a, b, scale, slice(row, row + len(b)), slice(rank, rank + len(a))))
                rank += len(a)
            row += int(base.out_features)

    def refresh(self) -> None:
        """Rounds the masters into the matrices."""
        for a, b, scale, rows, ranks in self.adapters:
            self.down[ranks] = a.detach().to(self.down.dtype)
            columns = slice(self.inputs + ranks.start, self.inputs + ranks.stop)
            self.weight[rows, columns] = (b.detach() * scale).to(self.weight.dtype)

    def widened(self, x: "Tensor") -> "Tensor":
        """[x, x A'] (tokens, in + rank)"""
        wide = torch.empty(len(x), self.inputs + self.rank, dtype=self.weight.dtype)
        wide[:, : self.inputs] = x
        return self.fill(wide)

    def fill(self, wide: "Tensor") -> "Tensor":
        """Writes x A' beside an x that is there already."""
        if self.rank:
            wide[:, self.inputs :] = wide[:, : self.inputs] @ self.down.t()
        return wide

    def product(self, wide: "Tensor") -> "Tensor":  # (tokens, in + rank) -> (tokens, out)
        return functional.linear(wide, self.weight, self.bias)

    def backward(self, gradient: "Tensor", wide: "Tensor", found: "list[Tensor]") -> "Tensor":  # (tokens, in)
        """The input's gradient; appends to `found` the gradients of each adapter's A and B."""
        back = gradient @ self.weight  # (tokens, in + rank)
        back, up = back[:, : self.inputs], back[:, self.inputs :]
        self._append(up, gradient, wide, found)
        return back.addmm_(up, self.down) if self.rank else back

    def backward_of_adapters(self, gradient: "Tensor", wide: "Tensor", found: "list[Tensor]") -> None:
        """The same where nothing is trained below: the input's gradient is left out."""
        self._append(gradient @ self.weight[:, self.inputs :], gradient, wide, found)

    def _append(self, up: "Tensor", gradient: "Tensor", wide: "Tensor", found: "list[Tensor]") -> None:
        if not self.rank:
            return
        of_down = up.t() @ wide[:, : self.inputs]  # (rank, in)
        for _, _, scale, rows, ranks in self.adapters:
            low = wide[:, self.inputs + ranks.start : self.inputs + ranks.stop]  # (tokens, rank)
            found += [of_down[ranks].float(), (low.t() @ gradient[:, rows]).t().float().mul_(scale)]


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: LoraGroup
    output: LoraGroup
    up: LoraGroup
    down: LoraGroup
    norm: Any
    mlp_norm: Any

    @property
    def groups(self) -> tuple[LoraGroup, ...]:
        return (self.qkv, self.output, self.up, self.down)


@dataclass(slots=True)
class _Kept:
    """What one layer's backward needs of its forward."""

    x: "Tensor"  # (tokens, dim + 3 * rank)
    qkv: "Tensor"  # (tokens, 3 * dim)
    weights: "list[Tensor]"  # of attention, by group of rows
    attended: "Tensor"  # (tokens, dim + rank)
    normed: "tuple[Tensor, Tensor, Tensor]"  # input, mean, 1 / deviation
    mlp_x: "Tensor"  # (tokens, dim + rank)
    up: "Tensor"  # (tokens, ffn)
    activated: "Tensor"  # (tokens, ffn + rank)
    mlp_normed: "tuple[Tensor, Tensor, Tensor]"


@dataclass(slots=True)
class Tape:
    """One forward's memory, consumed by its backward."""

    rows: FlatRows
    layers: list[_Kept]


class LoraStack:
    """A model's layers with their adapters, regrouped. Only the adapters are trained."""

    def __init__(self, model: Any, pooling: str, *, bfloat16: bool) -> None:
        self._model = weakref.proxy(model)
        self._pooling = pooling
        self.dtype = torch.bfloat16 if bfloat16 else torch.float32
        self.heads = int(model.config.num_attention_heads)
        pairs = zip(linear_groups(model), norms(model), strict=True)
        self._layers = [
            _Layer(
                **{name: LoraGroup(linears, self.dtype) for name, linears in groups.items()},
                norm=norm, mlp_norm=mlp_norm,
            )
            for groups, (norm, mlp_norm) in pairs
        ]  # fmt: skip
        trained = [any(group.rank for group in layer.groups) for layer in self._layers]
        self._lowest = trained.index(True) if any(trained) else len(trained)
        """Layers below are frozen: their backward is left out."""
        self.parameters = [
            parameter for layer in self._layers for group in layer.groups for a, b, *_ in group.adapters
            for parameter in (a, b)
        ]  # fmt: skip

    def refresh(self) -> None:
        with torch.no_grad():
            for layer in self._layers:
                for group in layer.groups:
                    group.refresh()

    def forward(self, rows: Sequence[Sequence[int]], *, keep: bool) -> "tuple[Tensor, Tape]":
        """Pooled states (rows, dim) in float32, and what the backward needs of it."""
        with torch.no_grad():
            flat = flatten(rows, spare=SPARE_TOKENS)
            tape = Tape(flat, [])
            x = embedding_block(self._model, flat)  # (tokens, dim)
            for number, layer in enumerate(self._layers):
                x, kept = self._forward(layer, x, flat)
                if keep and number >= self._lowest:
                    tape.layers.append(kept)
            return pool_rows(x, flat, self._pooling), tape

    def _forward(self, layer: _Layer, x: "Tensor", rows: FlatRows) -> "tuple[Tensor, _Kept]":
        tokens, dtype = len(x), self.dtype
        wide = layer.qkv.widened(x)
        qkv = layer.qkv.product(wide)
        attended = torch.empty(tokens, layer.output.inputs + layer.output.rank, dtype=dtype)
        weights = attend(qkv, rows, self.heads, attended[:, : layer.output.inputs])
        total = layer.output.product(layer.output.fill(attended)).to(x.dtype).add_(x)
        x, mean, scale = _norm(total, layer.norm)
        mlp_x = layer.up.widened(x)
        up = layer.up.product(mlp_x)
        activated = torch.empty(tokens, layer.down.inputs + layer.down.rank, dtype=dtype)
        activated[:, : layer.down.inputs] = functional.gelu(up)
        mlp_total = layer.down.product(layer.down.fill(activated)).to(x.dtype).add_(x)
        x, mlp_mean, mlp_scale = _norm(mlp_total, layer.mlp_norm)
        return x, _Kept(
            wide, qkv, weights, attended, (total, mean, scale), mlp_x, up, activated, (mlp_total, mlp_mean, mlp_scale)
        )

    def backward(self, tape: Tape, gradient: "Tensor") -> "list[Tensor]":
        """Gradients of `parameters` from that of the pooled states (rows, dim). The tape is used up."""
        with torch.no_grad():
            of_layers: list[list[Tensor]] = []
            gradient = spread_gradient(gradient, tape.rows, self._pooling)  # (tokens, dim)
            for number in reversed(range(self._lowest, len(self._layers))):
                kept = tape.layers.pop()
                found: tuple[list[Tensor], ...] = ([], [], [], [])
                gradient = self._backward(
                    self._layers[number], kept, gradient, tape.rows, found, lowest=number == self._lowest
                )
                of_layers.append([tensor for group in found for tensor in group])
            return [tensor for layer in reversed(of_layers) for tensor in layer]

    def _backward(
        self,
        layer: _Layer,
        kept: _Kept,
        gradient: "Tensor",
        rows: FlatRows,
        found: "tuple[list[Tensor], ...]",
        *,
        lowest: bool,
    ) -> "Tensor":
        dtype = self.dtype
        residual = _norm_backward(gradient, kept.mlp_normed, layer.mlp_norm)  # (tokens, dim) float32
        back = layer.down.backward(residual.to(dtype), kept.activated, found[3])
        back = layer.up.backward(torch.ops.aten.gelu_backward(back, kept.up), kept.mlp_x, found[2])
        residual = _norm_backward(residual.add_(back), kept.normed, layer.norm)
        back = layer.output.backward(residual.to(dtype), kept.attended, found[1])
        of_qkv = attend_backward(back, kept.qkv, kept.weights, rows, self.heads)
        if lowest:
            layer.qkv.backward_of_adapters(of_qkv, kept.x, found[0])
            return residual
        return residual.add_(layer.qkv.backward(of_qkv, kept.x, found[0]))


def _norm(x: "Tensor", norm: Any) -> "tuple[Tensor, Tensor, Tensor]":
    normed: tuple[Tensor, Tensor, Tensor] = torch.native_layer_norm(
        x, norm.normalized_shape, norm.weight, norm.bias, norm.eps
    )
    return normed


def _norm_backward(gradient: "Tensor", kept: "tuple[Tensor, Tensor, Tensor]", norm: Any) -> "Tensor":
    x, mean, scale = kept
    found: Tensor = torch.ops.aten.native_layer_norm_backward(
        gradient, x, norm.normalized_shape, mean, scale, norm.weight, norm.bias, [True, False, False]
    )[0]
    return found


def divide(lengths: Sequence[int]) -> list[list[int]]:
    """Row numbers in parts of about equal work, as many as keep all workers busy to the end."""
    workers = worker_count()
    count = max(1, min(len(lengths), workers * -(-sum(lengths) // (workers * PART_TOKENS))))
    parts: list[list[int]] = [[] for _ in range(count)]
    work = [0.0] * count
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        lightest = work.index(min(work))
        parts[lightest].append(index)
        work[lightest] += lengths[index] * (1 + lengths[index] / ATTENTION_TOKENS)
    return parts


def computed_tokens(lengths: Sequence[int]) -> int:
    """Tokens that a training pass over rows of these lengths computes, each part's filling included."""
    return sum(filled_tokens(sum(lengths[index] for index in part), SPARE_TOKENS) for part in divide(lengths))


_stacks: "weakref.WeakKeyDictionary[Any, tuple[WeightState, LoraStack]]" = weakref.WeakKeyDictionary()


def lora_stack(encoder: "Encoder", *, bfloat16: bool | None = None) -> LoraStack:
    """The encoder's layers for training; built again when an adapter came or went, or another precision is asked for.

    Args:
        bfloat16: of the large products; as before when not given, float32 at first.
    """
    model = transformer_of(encoder)
    known = _stacks.get(model)
    if bfloat16 is None:
        bfloat16 = known is not None and known[1].dtype == torch.bfloat16
    state = WeightState.of(model)
    wanted = torch.bfloat16 if bfloat16 else torch.float32
    if known is None or known[1].dtype != wanted or not state.same_tensors(known[0]):
        known = None
        _stacks.pop(model, None)  # freed before the new one is built: it is as large as the layers
        with torch.inference_mode(False), torch.no_grad():
            known = (state, LoraStack(model, encoder.pooling, bfloat16=bfloat16))
        _stacks[model] = known
    return known[1]


def drop_lora_stack(encoder: "Encoder") -> None:
    """Frees the layers regrouped for training."""
    _stacks.pop(transformer_of(encoder), None)


def flat_embed(encoder: "Encoder", rows: Sequence[Sequence[int]]) -> "Tensor":  # (rows, dim) float32, unit rows
    """Embeds token rows, all cores at once; differentiable with respect to the adapter when gradients are enabled."""
    stack = lora_stack(encoder)
    stack.refresh()
    pooled = _FlatEmbed.apply(stack, rows, torch.is_grad_enabled(), *stack.parameters)  # type: ignore[no-untyped-call]
    return functional.normalize(pooled, dim=-1)


class _FlatEmbed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stack: LoraStack, rows: Any, keep: bool, *parameters: Any) -> Any:
        parts = divide([len(row) for row in rows])
        given = [[rows[index] for index in part] for part in parts]
        done = list(in_workers(lambda some: stack.forward(some, keep=keep), given))
        pooled = torch.empty(len(rows), done[0][0].shape[1])
        for part, (some, _) in zip(parts, done, strict=True):
            pooled[part] = some
        if keep:
            ctx.stack, ctx.parts, ctx.tapes = stack, parts, [tape for _, tape in done]
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        work = [(tape, gradient[part]) for part, tape in zip(ctx.parts, ctx.tapes, strict=True)]
        found = list(in_workers(lambda some: ctx.stack.backward(*some), work))
        total = found[0]
        for part in found[1:]:
            torch._foreach_add_(total, part)
        return None, None, None, *total
