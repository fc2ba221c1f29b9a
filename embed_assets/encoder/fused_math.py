"""The fused path's operations in plain torch: what `fused_kernels` computes faster, readable and on any device.

Both modules have the same functions. Tensors are (tokens, columns). Some carry spare columns on their right, where a
low-rank product rides along into the next matrix product; a trailing underscore means that the last argument, or the
one named so, is written in place. It knows nothing of layers or models.
"""

import itertools
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from embed_assets.encoder.packing import PackedRows

if TYPE_CHECKING:
    from torch import Tensor

    from embed_assets.encoder.fused_attention import Rotation

Activation = Literal["swiglu", "gelu"]


def wide(x: "Tensor") -> "Tensor":
    """In float32 at least: norms, activations and sums are never taken in bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def add_rms_norm(
    x: "Tensor",  # (tokens, dim)
    delta: "Tensor | None",  # (tokens, dim)
    weight: "Tensor",  # (dim,)
    eps: float,
    spare: int,
) -> tuple["Tensor", "Tensor", "Tensor"]:
    """x + delta, its RMS norm (tokens, dim + spare), and the reciprocal root mean squares (tokens,)."""
    total = x if delta is None else (wide(x) + wide(delta)).to(x.dtype)
    values = wide(total)
    scale = torch.rsqrt(values.square().mean(1) + eps)
    normed = x.new_empty(len(x), x.shape[1] + spare)
    normed[:, : x.shape[1]] = values * scale[:, None] * wide(weight)
    return total, normed, scale


def rms_norm_backward_(
    grad_normed: "Tensor",  # (tokens, dim)
    x: "Tensor",  # (tokens, dim)
    scale: "Tensor",  # (tokens,)
    weight: "Tensor",  # (dim,)
    grad_: "Tensor",  # (tokens, dim + spare)
) -> None:
    """Adds the gradient with respect to x to the first columns of `grad_`."""
    dim = x.shape[1]
    weighted = wide(grad_normed) * wide(weight)
    unit = wide(x) * scale[:, None]
    grad_[:, :dim] = wide(grad_[:, :dim]) + scale[:, None] * (weighted - unit * (weighted * unit).mean(1, keepdim=True))


def add_layer_norm(
    x: "Tensor",  # (tokens, dim)
    delta: "Tensor",  # (tokens, dim)
    weight: "Tensor",  # (dim,)
    bias: "Tensor",  # (dim,)
    eps: float,
    spare: int,
) -> tuple["Tensor", "Tensor", "Tensor", "Tensor"]:
    """x + delta, its layer norm (tokens, dim + spare), and means and reciprocal deviations (tokens,)."""
    dim = delta.shape[1]
    total = (wide(x[:, :dim]) + wide(delta)).to(delta.dtype)
    values = wide(total)
    mean = values.mean(1)
    scale = torch.rsqrt(values.var(1, unbiased=False) + eps)
    normed = delta.new_empty(len(delta), dim + spare)
    normed[:, :dim] = (values - mean[:, None]) * scale[:, None] * wide(weight) + wide(bias)
    return total, normed, mean, scale


def layer_norm_backward_(
    extra: "Tensor | None",  # (tokens, dim)
    x: "Tensor",  # (tokens, dim)
    mean: "Tensor",  # (tokens,)
    scale: "Tensor",  # (tokens,)
    weight: "Tensor",  # (dim,)
    grad_: "Tensor",  # (tokens, dim + spare)
) -> None:
    """Replaces the gradient of the norm's output, `grad_` + `extra`, by that of its input."""
    dim = x.shape[1]
    incoming = wide(grad_[:, :dim]) if extra is None else wide(grad_[:, :dim]) + wide(extra)
    weighted = incoming * wide(weight)
    unit = (wide(x) - mean[:, None]) * scale[:, None]
    centred = weighted - weighted.mean(1, keepdim=True) - unit * (weighted * unit).mean(1, keepdim=True)
    grad_[:, :dim] = scale[:, None] * centred


def activate(
    before: "Tensor",  # (tokens, width or 2 * width, and more)
    kind: Activation,
    width: int,
    a: "Tensor",  # (low, width)
) -> tuple["Tensor", "Tensor"]:
    """silu(gate) * up, or gelu: (tokens, width + low), the last columns its product with a^T; and a copy of those."""
    hidden = before.new_empty(len(before), width + len(a))
    hidden[:, :width] = _activated(before, kind, width)
    low = hidden[:, :width] @ a.T
    hidden[:, width:] = low
    return hidden, low


def activate_backward_(
    before_: "Tensor",  # (tokens, width or 2 * width)
    grad_hidden: "Tensor",  # (tokens, width)
    kind: Activation,
    width: int,
    grad_low: "Tensor",  # (tokens, rank) of the layer after
    low: "Tensor",  # (tokens, projections * rank) of the layer before
    grad_a: "Tensor",  # (rank, width), written
    grad_b: "Tensor",  # (projections * width, rank), written
) -> None:
    """Replaces `before_` by its gradient, and fills grad_a and grad_b."""
    incoming = wide(grad_hidden)
    grad_a.copy_(wide(grad_low).T @ wide(_activated(before_, kind, width)))
    if kind == "swiglu":
        gate, up = wide(before_[:, :width]), wide(before_[:, width : 2 * width]).clone()
        sigmoid = torch.sigmoid(gate)
        before_[:, width : 2 * width] = incoming * gate * sigmoid
        before_[:, :width] = incoming * up * sigmoid * (1 + gate * (1 - sigmoid))
    else:
        values = wide(before_[:, :width])
        density = torch.exp(-0.5 * values.square()) * (2 * torch.pi) ** -0.5
        before_[:, :width] = incoming * (0.5 * (1 + torch.erf(values * 2**-0.5)) + values * density)
    projections = 2 if kind == "swiglu" else 1
    rank = low.shape[1] // projections
    for index in range(projections):
        columns = slice(index * width, (index + 1) * width)
        ranks = slice(index * rank, (index + 1) * rank)
        grad_b[columns] = wide(before_[:, columns]).T @ wide(low[:, ranks])


def _activated(before: "Tensor", kind: Activation, width: int) -> "Tensor":
    if kind == "gelu":
        return functional.gelu(wide(before[:, :width])).to(before.dtype)
    return (functional.silu(wide(before[:, :width])) * wide(before[:, width : 2 * width])).to(before.dtype)


def rotate_(
    states_: "Tensor",  # (tokens, heads, head_dim)
    cos: "Tensor",  # (tokens, head_dim / 2)
    sin: "Tensor",  # (tokens, head_dim / 2)
) -> None:
    """Rotary positions, in place: Su et al. 2021, the half-split layout of transformers."""
    first, second = wide(states_).chunk(2, dim=2)
    c, s = cos[:, None], sin[:, None]
    states_.copy_(torch.cat([first * c - second * s, second * c + first * s], 2))


def documents(packed: PackedRows) -> list[int]:
    """Where each document begins, and where the last one ends."""
    edges: list[int] = packed.boundaries.tolist()
    return edges


def attend(
    q_: "Tensor",  # (tokens, heads, head_dim)
    k_: "Tensor",  # (tokens, kv_heads, head_dim)
    v: "Tensor",
    out_: "Tensor",  # (tokens, heads, head_dim)
    of: list[int],
    causal: bool,
    turn: "Rotation | None",
    keep: bool,
) -> None:
    """Rotates queries (those only when a backward is to follow: `keep`) and keys, and attends within each document.

    Nothing else is kept for the backward.
    """
    if turn is not None:
        rotate_(q_, turn.cos, turn.sin)
        rotate_(k_, turn.cos, turn.sin)
    out_.copy_(_attended(q_, k_, v, of, causal))


def _attended(q: "Tensor", k: "Tensor", v: "Tensor", of: list[int], causal: bool) -> "Tensor":
    repeats = q.shape[1] // k.shape[1]
    outputs = []
    for start, stop in itertools.pairwise(of):
        query = wide(q[start:stop]).transpose(0, 1)
        key, value = (wide(states[start:stop]).transpose(0, 1).repeat_interleave(repeats, 0) for states in (k, v))
        output = functional.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=causal)[0]
        outputs.append(output.transpose(0, 1))
    return torch.cat(outputs).to(q.dtype)


def attend_backward(
    grad: "Tensor",  # (tokens, heads * head_dim)
    q: "Tensor",
    k: "Tensor",
    v: "Tensor",
    attended: "Tensor",
    kept: None,
    of: list[int],
    causal: bool,
    turn: "Rotation | None",
    spare: int,
) -> "Tensor":  # (tokens, (heads + 2 * kv_heads) * head_dim + spare)
    """Gradients of q, k and v, as they were before `turn`, side by side; and spare columns beside them."""
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [states.detach().clone().requires_grad_() for states in (q, k, v)]
        output = _attended(*inputs, of, causal)
        grads = torch.autograd.grad(output, inputs, grad.clone().view(output.shape))
    if turn is not None:
        rotate_(grads[0], turn.cos, turn.minus_sin)
        rotate_(grads[1], turn.cos, turn.minus_sin)
    return torch.cat([*(part.flatten(1) for part in grads), grad.new_empty(len(grad), spare)], 1)


def swiglu_of(x: "Tensor", weight_t: "Tensor", width: int) -> "Tensor":  # (tokens, width)
    """silu(gate) * up of x (tokens, dim) and a matrix (dim, 2 * width), for a forward without adapter or backward."""
    return activate(x @ weight_t, "swiglu", width, x.new_empty(0, width))[0]


def product_into(out: "Tensor", left: "Tensor", right: "Tensor") -> None:
    """left @ right into a float32 (or wider) matrix."""
    out.copy_(left @ right)


class ScaledCopies:
    """For each (source, aim, factor): aim = factor * source, rounded to the aim's precision.

    With a `target`, the aims are views of it, and `run` writes to the same places of the tensor it is given.
    """

    def __init__(self, moves: "list[tuple[Tensor, Tensor, float]]", target: "Tensor | None" = None) -> None:
        start = 0 if target is None else target.storage_offset()
        self._moves = [
            (source, aim, factor, (aim.shape, aim.stride(), aim.storage_offset() - start))
            for source, aim, factor in moves
        ]

    def run(self, target: "Tensor | None" = None) -> None:
        for source, aim, factor, (shape, stride, offset) in self._moves:
            place = aim if target is None else target.as_strided(shape, stride, target.storage_offset() + offset)
            place.copy_(source * factor)
