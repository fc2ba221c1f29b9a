"""Attention over short documents in one packed row, as Triton kernels.

A tile of queries is 64 consecutive tokens, whatever documents they belong to, and reads the keys from the first one's
beginning on. Flash attention gives every document tiles of 128 of its own, most of them empty where documents have 24 or
150 tokens; its backward adds up in float32 through atomic additions. Here every sum has one owner: the same inputs give
the same bits. It wants packed rows whose length is a multiple of the tiles. Import it on CUDA only.
"""

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from embed_assets.encoder.packing import PackedRows

if TYPE_CHECKING:
    from torch import Tensor

    from embed_assets.encoder.fused_attention import Rotation

LOG2_E = 1.4426950408889634
TILE, WARPS = 64, 4
"""Tokens of a tile and warps of a program: the fastest of those tried on an H100, for heads of 32, 64 and 128."""
JOINED = 32
"""Tokens of a program that adds up parts."""
ENOUGH_PROGRAMS = 300
"""Below it the keys' gradient leaves multiprocessors idle: its programs are few where heads share keys, and unequal."""


@triton.jit
def _allowed(query, key, start, end, CAUSAL: tl.constexpr):
    """Whether a query may read a key, both as broadcast indices of tokens."""
    if CAUSAL:
        return (key >= start) & (key <= query)
    return (key >= start) & (key < end)


@triton.jit
def _turned(source, cos, sin, row, KEEP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr):
    """Rows (ROWS, DIM) from `source` (ROWS, 1) with rotary positions, with KEEP written back."""
    half: tl.constexpr = DIM // 2
    column = tl.arange(0, half)[None, :]
    place = row.to(tl.int64)[:, None] * half + column
    c, s = tl.load(cos + place), tl.load(sin + place)
    first, second = tl.load(source + column).to(tl.float32), tl.load(source + half + column).to(tl.float32)
    left = (first * c - second * s).to(source.dtype.element_ty)
    right = (second * c + first * s).to(source.dtype.element_ty)
    if KEEP:
        tl.store(source + column, left)
        tl.store(source + half + column, right)
    return tl.reshape(tl.permute(tl.join(left, right), (0, 2, 1)), (ROWS, DIM))


@triton.jit
def _turned_back(values, cos, sin, row, ROWS: tl.constexpr, DIM: tl.constexpr):
    """Both halves of (ROWS, DIM) gradients, each (ROWS, DIM / 2), as they were before rotary positions."""
    half: tl.constexpr = DIM // 2
    first, second = tl.split(tl.permute(tl.reshape(values, (ROWS, 2, half)), (0, 2, 1)))
    place = row.to(tl.int64)[:, None] * half + tl.arange(0, half)[None, :]
    c, s = tl.load(cos + place), tl.load(sin + place)
    return first * c + second * s, second * c - first * s


@triton.jit
def _store(target, values, cos, sin, row, TURNED: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr):
    """Rows of gradients to `target` (ROWS, 1), turned back where positions are rotary."""
    kind = target.dtype.element_ty
    if TURNED:
        first, second = _turned_back(values, cos, sin, row, ROWS, DIM)
        half = tl.arange(0, DIM // 2)[None, :]
        tl.store(target + half, first.to(kind))
        tl.store(target + DIM // 2 + half, second.to(kind))
    else:
        tl.store(target + tl.arange(0, DIM)[None, :], values.to(kind))


@triton.jit
def _attend(
    q, sq, k, sk, v, sv, out, so, log_sums, cos, sin, spans, tokens, scale, group,
    TURNED: tl.constexpr, KEEP: tl.constexpr, CAUSAL: tl.constexpr, DIM: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """One program: BM queries of one head. Sums of exponentials are kept as base-2 logarithms.

    Queries are given their rotary positions on the way, and with KEEP written back with them; the keys have theirs.
    """
    first, head = tl.program_id(0) * BM, tl.program_id(1)
    row, column = first + tl.arange(0, BM), tl.arange(0, DIM)
    start, end = tl.load(spans + row), tl.load(spans + tokens + row)
    lower = tl.load(spans + first) // BN * BN
    upper = first + BM if CAUSAL else tl.load(spans + tokens + first + BM - 1)
    wide = row.to(tl.int64)[:, None]
    if TURNED:
        queries = _turned(q + wide * sq + head * DIM, cos, sin, row, KEEP, BM, DIM)
    else:
        queries = tl.load(q + wide * sq + head * DIM + column[None, :])
    kv = head // group * DIM
    top = tl.full((BM,), -1e30, dtype=tl.float32)
    total = tl.zeros((BM,), dtype=tl.float32)
    sums = tl.zeros((BM, DIM), dtype=tl.float32)
    for begin in range(lower, upper, BN):
        key = begin + tl.arange(0, BN)
        place = key.to(tl.int64)[:, None]
        keys = tl.load(k + place * sk + kv + column[None, :])
        values = tl.load(v + place * sv + kv + column[None, :])
        scores = tl.dot(queries, tl.trans(keys)) * scale
        allowed = _allowed(row[:, None], key[None, :], start[:, None], end[:, None], CAUSAL)
        scores = tl.where(allowed, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp2(top - higher)
        weights = tl.exp2(scores - higher[:, None])
        total = total * shrink + tl.sum(weights, 1)
        sums = tl.dot(weights.to(values.dtype), values, sums * shrink[:, None])
        top = higher
    sums = sums / total[:, None]
    tl.store(out + wide * so + head * DIM + column[None, :], sums.to(out.dtype.element_ty))
    tl.store(log_sums + head * tokens + row, top + tl.log2(total))


@triton.jit
def _attend_backward_queries(
    grad, sg, q, sq, k, sk, v, sv, out, so, log_sums, deltas, grad_q, sgq, cos, sin, spans, tokens, scale, group,
    TURNED: tl.constexpr, CAUSAL: tl.constexpr, DIM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """One program: the gradient of BM queries of one head, and the sums (grad * out) that the keys' gradient needs."""
    first, head = tl.program_id(0) * BM, tl.program_id(1)
    row, column = first + tl.arange(0, BM), tl.arange(0, DIM)
    start, end = tl.load(spans + row), tl.load(spans + tokens + row)
    lower = tl.load(spans + first) // BN * BN
    upper = first + BM if CAUSAL else tl.load(spans + tokens + first + BM - 1)
    wide = row.to(tl.int64)[:, None]
    queries = tl.load(q + wide * sq + head * DIM + column[None, :])
    incoming = tl.load(grad + wide * sg + head * DIM + column[None, :])
    attended = tl.load(out + wide * so + head * DIM + column[None, :])
    delta = tl.sum(incoming.to(tl.float32) * attended.to(tl.float32), 1)
    tl.store(deltas + head * tokens + row, delta)
    log_sum = tl.load(log_sums + head * tokens + row)
    kv = head // group * DIM
    result = tl.zeros((BM, DIM), dtype=tl.float32)
    for begin in range(lower, upper, BN):
        key = begin + tl.arange(0, BN)
        place = key.to(tl.int64)[:, None]
        keys = tl.load(k + place * sk + kv + column[None, :])
        values = tl.load(v + place * sv + kv + column[None, :])
        scores = tl.dot(queries, tl.trans(keys)) * scale
        allowed = _allowed(row[:, None], key[None, :], start[:, None], end[:, None], CAUSAL)
        weights = tl.exp2(tl.where(allowed, scores, float("-inf")) - log_sum[:, None])
        of_weights = tl.dot(incoming, tl.trans(values))
        of_scores = weights * (of_weights - delta[:, None])
        result = tl.dot(of_scores.to(keys.dtype), keys, result)
    result = result * (scale * 0.6931471805599453)
    _store(grad_q + wide * sgq + head * DIM, result, cos, sin, row, TURNED, BM, DIM)


@triton.jit
def _attend_backward_keys(
    grad, sg, q, sq, k, sk, v, sv, log_sums, deltas, grad_k, grad_v, sgk, parts, cos, sin, spans, tokens, scale, group,
    TURNED: tl.constexpr, CAUSAL: tl.constexpr, PARTS: tl.constexpr, DIM: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """One program: the gradients of BN keys and values of one head, over all query heads that share it, or a part."""
    first, kv_head, part = tl.program_id(0) * BN, tl.program_id(1), tl.program_id(2)
    key, column = first + tl.arange(0, BN), tl.arange(0, DIM)
    lower = first // BM * BM if CAUSAL else tl.load(spans + first) // BM * BM
    upper = tl.load(spans + tokens + first + BN - 1)
    place = key.to(tl.int64)[:, None]
    keys = tl.load(k + place * sk + kv_head * DIM + column[None, :])
    values = tl.load(v + place * sv + kv_head * DIM + column[None, :])
    sum_k = tl.zeros((BN, DIM), dtype=tl.float32)
    sum_v = tl.zeros((BN, DIM), dtype=tl.float32)
    for head in range(kv_head * group + part * group // PARTS, kv_head * group + (part + 1) * group // PARTS):
        for begin in range(lower, upper, BM):
            row = begin + tl.arange(0, BM)
            wide = row.to(tl.int64)[:, None]
            start, end = tl.load(spans + row), tl.load(spans + tokens + row)
            queries = tl.load(q + wide * sq + head * DIM + column[None, :])
            incoming = tl.load(grad + wide * sg + head * DIM + column[None, :])
            log_sum = tl.load(log_sums + head * tokens + row)
            delta = tl.load(deltas + head * tokens + row)
            scores = tl.dot(keys, tl.trans(queries)) * scale  # (BN, BM)
            allowed = _allowed(row[None, :], key[:, None], start[None, :], end[None, :], CAUSAL)
            weights = tl.exp2(tl.where(allowed, scores, float("-inf")) - log_sum[None, :])
            sum_v = tl.dot(weights.to(incoming.dtype), incoming, sum_v)
            of_weights = tl.dot(values, tl.trans(incoming))
            of_scores = weights * (of_weights - delta[None, :])
            sum_k = tl.dot(of_scores.to(queries.dtype), queries, sum_k)
    sum_k = sum_k * (scale * 0.6931471805599453)
    if PARTS == 1:
        _store(grad_k + place * sgk + kv_head * DIM, sum_k, cos, sin, key, TURNED, BN, DIM)
        tl.store(grad_v + place * sgk + kv_head * DIM + column[None, :], sum_v.to(grad_v.dtype.element_ty))
    else:
        size = tokens.to(tl.int64) * DIM
        target = parts + ((part * tl.num_programs(1) + kv_head) * 2) * size + place * DIM + column[None, :]
        tl.store(target, sum_k)
        tl.store(target + size, sum_v)


@triton.jit
def _join_parts(
    parts, grad_k, grad_v, sgk, cos, sin, tokens,
    TURNED: tl.constexpr, PARTS: tl.constexpr, DIM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """One program: the gradients of BN keys and values of one head, from the sums over parts of the query heads."""
    first, kv_head = tl.program_id(0) * BN, tl.program_id(1)
    key, column = first + tl.arange(0, BN), tl.arange(0, DIM)
    place = key.to(tl.int64)[:, None]
    size = tokens.to(tl.int64) * DIM
    sum_k = tl.zeros((BN, DIM), dtype=tl.float32)
    sum_v = tl.zeros((BN, DIM), dtype=tl.float32)
    for part in range(PARTS):
        source = parts + ((part * tl.num_programs(1) + kv_head) * 2) * size + place * DIM + column[None, :]
        sum_k += tl.load(source)
        sum_v += tl.load(source + size)
    _store(grad_k + place * sgk + kv_head * DIM, sum_k, cos, sin, key, TURNED, BN, DIM)
    tl.store(grad_v + place * sgk + kv_head * DIM + column[None, :], sum_v.to(grad_v.dtype.element_ty))


def spans_of(packed: PackedRows) -> "Tensor":  # (2, tokens) int32
    """Where each token's document begins, and where it ends."""
    token = torch.arange(len(packed.token_ids), dtype=torch.int32, device=packed.boundaries.device)
    document = torch.searchsorted(packed.boundaries[1:], token, right=True)
    return torch.stack([packed.boundaries[document], packed.boundaries[document + 1]])


def attend(
    q_: "Tensor",
    k: "Tensor",
    v: "Tensor",
    out_: "Tensor",
    spans: "Tensor",
    causal: bool,
    turn: "Rotation | None",
    keep: bool,
) -> "Tensor":  # (heads, tokens)
    """Fills `out_` (tokens, heads, dim), and returns the logarithms of the softmax's sums. With `keep` turns `q_`."""
    tokens, heads, dim = q_.shape
    log_sums = torch.empty(heads, tokens, device=q_.device, dtype=torch.float32)
    cos, sin = (log_sums, log_sums) if turn is None else (turn.cos, turn.sin)
    _attend[(tokens // TILE, heads)](
        q_, q_.stride(0), k, k.stride(0), v, v.stride(0), out_, out_.stride(0), log_sums, cos, sin, spans, tokens,
        dim**-0.5 * LOG2_E, heads // k.shape[1], turn is not None, keep, causal, dim, TILE, TILE, num_warps=WARPS,
        num_stages=3,
    )  # fmt: skip
    return log_sums


def attend_backward(
    grad: "Tensor",
    q: "Tensor",
    k: "Tensor",
    v: "Tensor",
    out: "Tensor",
    log_sums: "Tensor",
    spans: "Tensor",
    causal: bool,
    turn: "Rotation | None",
    spare: int,
) -> "Tensor":  # (tokens, columns + spare)
    """Gradients of queries, keys and values side by side, as they were before `turn`."""
    tokens, heads, dim = q.shape
    kv_heads = k.shape[1]
    joined = grad.new_empty(tokens, (heads + 2 * kv_heads) * dim + spare)
    grad_q, grad_k, grad_v = joined[:, : (heads + 2 * kv_heads) * dim].split(
        [heads * dim, kv_heads * dim, kv_heads * dim], dim=1
    )
    deltas = torch.empty_like(log_sums)
    scale, group, stages = dim**-0.5 * LOG2_E, heads // kv_heads, 2 if dim == 128 else 3
    cos, sin = (deltas, deltas) if turn is None else (turn.cos, turn.sin)
    _attend_backward_queries[(tokens // TILE, heads)](
        grad, grad.stride(0), q, q.stride(0), k, k.stride(0), v, v.stride(0), out, out.stride(0), log_sums, deltas,
        grad_q, joined.stride(0), cos, sin, spans, tokens, scale, group, turn is not None, causal, dim, TILE, TILE,
        num_warps=WARPS, num_stages=stages,
    )  # fmt: skip
    count = parts_of(tokens // TILE * kv_heads, group)
    parts = deltas if count == 1 else deltas.new_empty(count, kv_heads, 2, tokens, dim)
    _attend_backward_keys[(tokens // TILE, kv_heads, count)](
        grad, grad.stride(0), q, q.stride(0), k, k.stride(0), v, v.stride(0), log_sums, deltas, grad_k, grad_v,
        joined.stride(0), parts, cos, sin, spans, tokens, scale, group, turn is not None, causal, count, dim, TILE, TILE,
        num_warps=WARPS, num_stages=stages,
    )  # fmt: skip
    if count > 1:
        _join_parts[(tokens // JOINED, kv_heads)](
            parts, grad_k, grad_v, joined.stride(0), cos, sin, tokens, turn is not None, count, dim, JOINED, num_warps=4
        )
    return joined


def parts_of(programs: int, group: int) -> int:
    """Into how many parts the query heads that share a key are divided, so that enough programs fill the chip."""
    divisors = [count for count in range(1, group + 1) if group % count == 0]
    return next((count for count in divisors if programs * count >= ENOUGH_PROGRAMS), divisors[-1])
