"""The fused path's operations as Triton kernels: `fused_math` says what each computes, this file how it is made fast.

All but the matrix products are bound by memory traffic, so each tensor is read once and written once. Most low-rank
products of the wide MLP layers (adapters of rank 16 over 8,960 columns) are taken on the way: a product of their own
would read the same gigabytes again. Sums over tokens go through partial buffers and not through atomic additions, so
that the same inputs give the same bits. Import it on CUDA only.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from embed_assets.encoder import fused_attention_kernels, fused_gated
from embed_assets.encoder.packing import PackedRows

if TYPE_CHECKING:
    from torch import Tensor

    from embed_assets.encoder.fused_attention import Rotation
    from embed_assets.encoder.fused_math import Activation

FORWARD_TILES = {"swiglu": (64, 64, 4), "gelu": (64, 32, 4)}
BACKWARD_TILES = {"swiglu": (64, 64, 4), "gelu": (32, 64, 4)}
"""Tokens and columns of one step of the activation kernels, and their warps: the fastest of those tried on an H100."""
FORWARD_SPANS = 10
"""Column ranges of the forward, each a program of its own: more of them fill the chip evenly."""
BACKWARD_SPANS = 30
"""Token ranges whose weight gradients are summed apart."""
LONGEST_SHORT_DOCUMENT = 1024
"""Above it flash attention takes over: its tiles are full then."""


@triton.jit
def _add_rms_norm(
    x, sx, delta, sd, weight, total, st, normed, sn, scale, dim, eps, ADD: tl.constexpr, BLOCK: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < dim
    values = tl.load(x + token * sx + column, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        values += tl.load(delta + token * sd + column, mask=inside, other=0.0).to(tl.float32)
        rounded = values.to(total.dtype.element_ty)
        tl.store(total + token * st + column, rounded, mask=inside)
        values = rounded.to(tl.float32)
    factor = 1.0 / tl.sqrt(tl.sum(values * values, 0) / dim + eps)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + token * sn + column, (values * factor * w).to(normed.dtype.element_ty), mask=inside)
    tl.store(scale + token, factor)


@triton.jit
def _rms_norm_backward(grad_normed, sg, x, sx, scale, weight, grad, so, dim, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < dim
    incoming = tl.load(grad_normed + token * sg + column, mask=inside, other=0.0).to(tl.float32)
    weighted = incoming * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(scale + token)
    unit = tl.load(x + token * sx + column, mask=inside, other=0.0).to(tl.float32) * factor
    shared = tl.sum(weighted * unit, 0) / dim
    before = tl.load(grad + token * so + column, mask=inside, other=0.0).to(tl.float32)
    after = before + factor * (weighted - unit * shared)
    tl.store(grad + token * so + column, after.to(grad.dtype.element_ty), mask=inside)


@triton.jit
def _add_layer_norm(x, sx, delta, sd, weight, bias, total, st, normed, sn, mean, scale, dim, eps, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < dim
    values = tl.load(x + token * sx + column, mask=inside, other=0.0).to(tl.float32)
    values += tl.load(delta + token * sd + column, mask=inside, other=0.0).to(tl.float32)
    rounded = values.to(total.dtype.element_ty)
    tl.store(total + token * st + column, rounded, mask=inside)
    values = rounded.to(tl.float32)
    centre = tl.sum(values, 0) / dim
    centred = tl.where(inside, values - centre, 0.0)
    factor = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / dim + eps)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + token * sn + column, (centred * factor * w + b).to(normed.dtype.element_ty), mask=inside)
    tl.store(mean + token, centre)
    tl.store(scale + token, factor)


@triton.jit
def _layer_norm_backward(
    extra, se, x, sx, mean, scale, weight, grad, so, dim, EXTRA: tl.constexpr, BLOCK: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < dim
    incoming = tl.load(grad + token * so + column, mask=inside, other=0.0).to(tl.float32)
    if EXTRA:
        incoming += tl.load(extra + token * se + column, mask=inside, other=0.0).to(tl.float32)
    weighted = incoming * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(scale + token)
    values = tl.load(x + token * sx + column, mask=inside, other=0.0).to(tl.float32)
    unit = tl.where(inside, (values - tl.load(mean + token)) * factor, 0.0)
    centred = weighted - tl.sum(weighted, 0) / dim - unit * (tl.sum(weighted * unit, 0) / dim)
    tl.store(grad + token * so + column, (factor * centred).to(grad.dtype.element_ty), mask=inside)


@triton.jit
def _activate(
    before, sb, hidden, sh, part_low, a, sa, tokens, width, span,
    GATED: tl.constexpr, LOW: tl.constexpr, RANKS: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """One program: BT tokens times `span` columns."""
    token = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    there = token < tokens
    rank = tl.arange(0, RANKS)
    product = tl.zeros((BT, RANKS), dtype=tl.float32)
    first = tl.program_id(1) * span
    for start in range(0, span, BW):
        column = first + start + tl.arange(0, BW)
        inside = there[:, None] & (column < width)[None, :]
        source = before + token[:, None] * sb + column[None, :]
        gate = tl.load(source, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            up = tl.load(source + width, mask=inside, other=0.0).to(tl.float32)
            values = gate * tl.sigmoid(gate) * up
        else:
            values = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
        rounded = values.to(hidden.dtype.element_ty)
        tl.store(hidden + token[:, None] * sh + column[None, :], rounded, mask=inside)
        if LOW:
            rows = tl.load(a + rank[:, None] * sa + column[None, :], mask=(column < width)[None, :], other=0.0)
            product = tl.dot(rounded, tl.trans(rows), product)
    if LOW:
        target = part_low + (tl.program_id(1).to(tl.int64) * tokens + token)[:, None] * RANKS + rank[None, :]
        tl.store(target, product, mask=there[:, None])


@triton.jit
def _join_low(part_low, low, hidden, sh, tokens, SPANS: tl.constexpr, RANKS: tl.constexpr, BT: tl.constexpr):
    """One program: the sums over column ranges for BT tokens, beside the hidden states and apart."""
    token = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT)
    there = (token < tokens)[:, None]
    rank = tl.arange(0, RANKS)[None, :]
    place = token[:, None] * RANKS + rank
    total = tl.zeros((BT, RANKS), dtype=tl.float32)
    source = part_low + place
    for _ in range(SPANS):
        total += tl.load(source, mask=there, other=0.0)
        source += tokens * RANKS
    rounded = total.to(low.dtype.element_ty)
    tl.store(low + place, rounded, mask=there)
    tl.store(hidden + token[:, None] * sh + rank, rounded, mask=there)


@triton.jit
def _activate_backward(
    before, sb, grad_hidden, sg, grad_low, low, sl, part_a, part_b, tokens, width, span,
    GATED: tl.constexpr, RANKS: tl.constexpr, BT: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """One program: BW columns of the layer times `span` tokens."""
    block, split = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = block * BW + tl.arange(0, BW)
    column_inside = column < width
    rank = tl.arange(0, RANKS)
    sum_a = tl.zeros((BW, RANKS), dtype=tl.float32)
    sum_gate = tl.zeros((BW, RANKS), dtype=tl.float32)
    sum_up = tl.zeros((BW, RANKS), dtype=tl.float32)
    for start in range(0, span, BT):
        token = split * span + start + tl.arange(0, BT)
        there = (token < tokens) & (start + tl.arange(0, BT) < span)
        inside = there[:, None] & column_inside[None, :]
        place = before + token[:, None] * sb + column[None, :]
        gate = tl.load(place, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_hidden + token[:, None] * sg + column[None, :], mask=inside, other=0.0).to(tl.float32)
        grad_down = tl.load(grad_low + token[:, None] * RANKS + rank[None, :], mask=there[:, None], other=0.0)
        low_gate = tl.load(low + token[:, None] * sl + rank[None, :], mask=there[:, None], other=0.0)
        if GATED:
            up = tl.load(place + width, mask=inside, other=0.0).to(tl.float32)
            sigmoid = tl.sigmoid(gate)
            silu = gate * sigmoid
            values = silu * up
            grad_gate = (grad * up * (sigmoid + silu * (1.0 - sigmoid))).to(before.dtype.element_ty)
            grad_up = (grad * silu).to(before.dtype.element_ty)
            tl.store(place + width, grad_up, mask=inside)
            low_up = tl.load(low + token[:, None] * sl + RANKS + rank[None, :], mask=there[:, None], other=0.0)
            sum_up = tl.dot(tl.trans(grad_up), low_up, sum_up)
        else:
            below = 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
            values = gate * below
            density = 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
            grad_gate = (grad * (below + gate * density)).to(before.dtype.element_ty)
        tl.store(place, grad_gate, mask=inside)
        sum_a = tl.dot(tl.trans(values.to(before.dtype.element_ty)), grad_down, sum_a)
        sum_gate = tl.dot(tl.trans(grad_gate), low_gate, sum_gate)
    a_target = part_a + (split * RANKS + rank[None, :]) * width + column[:, None]
    tl.store(a_target, sum_a, mask=column_inside[:, None])
    b_target = part_b + (split * width * (1 + GATED) + column[:, None]) * RANKS + rank[None, :]
    tl.store(b_target, sum_gate, mask=column_inside[:, None])
    if GATED:
        tl.store(b_target + width * RANKS, sum_up, mask=column_inside[:, None])


@triton.jit
def _rotate(x, sx, cos, sin, heads, HALF: tl.constexpr, HEADS: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (column < HALF)
    c = tl.load(cos + token * HALF + column)
    s = tl.load(sin + token * HALF + column)
    place = x + token * sx + head * (2 * HALF) + column
    first = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(place + HALF, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, (first * c - second * s).to(x.dtype.element_ty), mask=inside)
    tl.store(place + HALF, (second * c + first * s).to(x.dtype.element_ty), mask=inside)


@triton.jit
def _copy_scaled(table, factors, base, SOURCE: tl.constexpr, TARGET: tl.constexpr, BLOCK: tl.constexpr):
    """table: (moves, 6) of source address, its row stride, target address less base, its row stride, rows, columns."""
    move = table + tl.program_id(0) * 6
    columns = tl.load(move + 5)
    size = tl.load(move + 4) * columns
    if tl.program_id(1) * BLOCK < size:
        index = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        row = index // columns
        column = index - row * columns
        source = tl.load(move).to(tl.pointer_type(SOURCE))
        target = (tl.load(move + 2) + base).to(tl.pointer_type(TARGET))
        values = tl.load(source + row * tl.load(move + 1) + column, mask=index < size)
        factor = tl.load(factors + tl.program_id(0))
        tl.store(target + row * tl.load(move + 3) + column, (values * factor).to(TARGET), mask=index < size)


def add_rms_norm(
    x: "Tensor", delta: "Tensor | None", weight: "Tensor", eps: float, spare: int
) -> tuple["Tensor", "Tensor", "Tensor"]:
    tokens, dim = x.shape
    normed = x.new_empty(tokens, dim + spare)
    scale = torch.empty(tokens, device=x.device, dtype=torch.float32)
    total = x if delta is None else x.new_empty(tokens, dim)
    added = x if delta is None else delta
    _add_rms_norm[(tokens,)](
        x, x.stride(0), added, added.stride(0), weight, total, total.stride(0), normed, normed.stride(0), scale, dim,
        eps, delta is not None, triton.next_power_of_2(dim), num_warps=4,
    )  # fmt: skip
    return total, normed, scale


def rms_norm_backward_(grad_normed: "Tensor", x: "Tensor", scale: "Tensor", weight: "Tensor", grad_: "Tensor") -> None:
    tokens, dim = x.shape
    _rms_norm_backward[(tokens,)](
        grad_normed, grad_normed.stride(0), x, x.stride(0), scale, weight, grad_, grad_.stride(0), dim,
        triton.next_power_of_2(dim), num_warps=4,
    )  # fmt: skip


def add_layer_norm(
    x: "Tensor", delta: "Tensor", weight: "Tensor", bias: "Tensor", eps: float, spare: int
) -> tuple["Tensor", "Tensor", "Tensor", "Tensor"]:
    tokens, dim = delta.shape
    normed = delta.new_empty(tokens, dim + spare)
    total = delta.new_empty(tokens, dim)
    mean, scale = torch.empty(2, tokens, device=delta.device, dtype=torch.float32).unbind(0)
    _add_layer_norm[(tokens,)](
        x, x.stride(0), delta, delta.stride(0), weight, bias, total, total.stride(0), normed, normed.stride(0), mean,
        scale, dim, eps, triton.next_power_of_2(dim), num_warps=4,
    )  # fmt: skip
    return total, normed, mean, scale


def layer_norm_backward_(
    extra: "Tensor | None", x: "Tensor", mean: "Tensor", scale: "Tensor", weight: "Tensor", grad_: "Tensor"
) -> None:
    tokens, dim = x.shape
    added = x if extra is None else extra
    _layer_norm_backward[(tokens,)](
        added, added.stride(0), x, x.stride(0), mean, scale, weight, grad_, grad_.stride(0), dim, extra is not None,
        triton.next_power_of_2(dim), num_warps=4,
    )  # fmt: skip


def activate(before: "Tensor", kind: "Activation", width: int, a: "Tensor") -> tuple["Tensor", "Tensor"]:
    tokens, rank = len(before), len(a)
    tile_tokens, tile_columns, warps = FORWARD_TILES[kind]
    hidden = before.new_empty(tokens, width + rank)
    span = triton.cdiv(triton.cdiv(width, FORWARD_SPANS), tile_columns) * tile_columns
    spans = triton.cdiv(width, span)
    part_low = torch.empty(spans, tokens, rank, device=before.device, dtype=torch.float32)
    _activate[(triton.cdiv(tokens, tile_tokens), spans)](
        before, before.stride(0), hidden, hidden.stride(0), part_low, a, a.stride(0), tokens, width, span,
        kind == "swiglu", rank > 0, max(rank, 16), tile_tokens, tile_columns, num_warps=warps, num_stages=3,
    )  # fmt: skip
    low = before.new_empty(tokens, rank)
    if rank:
        _join_low[(triton.cdiv(tokens, 64),)](
            part_low, low, hidden[:, width:], hidden.stride(0), tokens, spans, rank, 64, num_warps=4
        )
    return hidden, low


def swiglu_of(x: "Tensor", weight_t: "Tensor", width: int) -> "Tensor":
    def plain() -> "Tensor":
        return activate(x @ weight_t, "swiglu", width, x.new_empty(0, width))[0]

    hidden = fused_gated.gated_product(x, weight_t.T, width, plain)
    return plain() if hidden is None else hidden


def activate_backward_(
    before_: "Tensor",
    grad_hidden: "Tensor",
    kind: "Activation",
    width: int,
    grad_low: "Tensor",
    low: "Tensor",
    grad_a: "Tensor",
    grad_b: "Tensor",
) -> None:
    tokens, rank = grad_low.shape
    projections = 2 if kind == "swiglu" else 1
    tile_tokens, tile_columns, warps = BACKWARD_TILES[kind]
    span = max(2 * tile_tokens, triton.cdiv(triton.cdiv(tokens, BACKWARD_SPANS), tile_tokens) * tile_tokens)
    spans = triton.cdiv(tokens, span)
    part_a = torch.empty(spans, rank, width, device=before_.device, dtype=torch.float32)
    part_b = torch.empty(spans, projections * width, rank, device=before_.device, dtype=torch.float32)
    _activate_backward[(triton.cdiv(width, tile_columns), spans)](
        before_, before_.stride(0), grad_hidden, grad_hidden.stride(0), grad_low.contiguous(), low, low.stride(0),
        part_a, part_b, tokens, width, span, kind == "swiglu", rank, tile_tokens, tile_columns, num_warps=warps,
        num_stages=2,
    )  # fmt: skip
    torch.sum(part_a, 0, out=grad_a)
    torch.sum(part_b, 0, out=grad_b)


def rotate_(states_: "Tensor", cos: "Tensor", sin: "Tensor") -> None:
    tokens, heads, dim = states_.shape
    _rotate[(tokens,)](
        states_, states_.stride(0), cos, sin, heads, dim // 2, triton.next_power_of_2(heads), num_warps=4
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Documents:
    """A packed row's documents, as the attention kernels read them."""

    packed: PackedRows
    spans: "Tensor | None"
    """(2, tokens) where each token's document begins and ends; None where flash attention runs."""


def documents(packed: PackedRows) -> Documents:
    short = packed.longest <= LONGEST_SHORT_DOCUMENT and len(packed.token_ids) % fused_attention_kernels.TILE == 0
    return Documents(packed, fused_attention_kernels.spans_of(packed) if short else None)


def attend(
    q_: "Tensor",
    k_: "Tensor",
    v: "Tensor",
    out_: "Tensor",
    of: Documents,
    causal: bool,
    turn: "Rotation | None",
    keep: bool,
) -> Any:
    if turn is not None:
        rotate_(k_, turn.cos, turn.sin)
    if of.spans is not None:
        return fused_attention_kernels.attend(q_, k_, v, out_, of.spans, causal, turn, keep)
    if turn is not None:
        rotate_(q_, turn.cos, turn.sin)
    boundaries, longest = of.packed.boundaries, of.packed.longest
    attended, log_sums, state, _, _ = torch.ops.aten._flash_attention_forward(
        q_, k_, v, boundaries, boundaries, longest, longest, 0.0, causal, return_debug_mask=False
    )
    out_.copy_(attended)
    return log_sums, state


def attend_backward(
    grad: "Tensor",
    q: "Tensor",
    k: "Tensor",
    v: "Tensor",
    attended: "Tensor",
    kept: Any,
    of: Documents,
    causal: bool,
    turn: "Rotation | None",
    spare: int,
) -> "Tensor":
    if of.spans is not None:
        return fused_attention_kernels.attend_backward(grad, q, k, v, attended, kept, of.spans, causal, turn, spare)
    log_sums, state = kept
    boundaries, longest = of.packed.boundaries, of.packed.longest
    grads = torch.ops.aten._flash_attention_backward(
        grad.view(attended.shape), q, k, v, attended.contiguous(), log_sums, boundaries, boundaries, longest, longest,
        0.0, causal, state, torch.empty(0, device=grad.device),
    )  # fmt: skip
    columns = sum(part[0].numel() for part in grads)
    joined = grad.new_empty(len(grad), columns + spare)
    torch.cat([part.flatten(1) for part in grads], 1, out=joined[:, :columns])
    if turn is not None:
        heads = q.shape[1] + k.shape[1]
        rotate_(joined[:, : heads * q.shape[2]].unflatten(1, (heads, -1)), turn.cos, turn.minus_sin)
    return joined


def product_into(out: "Tensor", left: "Tensor", right: "Tensor") -> None:
    torch.ops.aten.mm.dtype_out(left, right, torch.float32, out=out)


class ScaledCopies:
    """Many small strided copies as one kernel. Targets are given as views of `target`, whose storage may change."""

    def __init__(self, moves: "list[tuple[Tensor, Tensor, float]]", target: "Tensor | None" = None) -> None:
        base = 0 if target is None else target.data_ptr()
        first_source, first_target, _ = moves[0]
        self._types = _TYPES[first_source.dtype], _TYPES[first_target.dtype]
        rows = [
            (
                source.data_ptr(), source.stride(0), aim.data_ptr() - base, aim.stride(0), source.shape[0], source.shape[1]
            )
            for source, aim, _ in moves
        ]  # fmt: skip
        device = first_source.device
        self._table = torch.tensor(rows, dtype=torch.int64, device=device)
        self._factors = torch.tensor([factor for _, _, factor in moves], dtype=torch.float32, device=device)
        self._grid = (len(rows), triton.cdiv(max(row[4] * row[5] for row in rows), 1024))

    def run(self, target: "Tensor | None" = None) -> None:
        base = 0 if target is None else target.data_ptr()
        _copy_scaled[self._grid](self._table, self._factors, base, *self._types, 1024, num_warps=4)


_TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
