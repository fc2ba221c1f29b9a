"""Qwen2 with LoRA over a packed row, forward and backward written out.

Against autograd over transformers' modules it saves launches (one matrix per group of projections, fused norms),
memory (49 KB per token and layer at 1.5B's shape, of which 36 KB are the gate and up projections and can be recomputed)
and work (the last layer's MLP runs on pooled tokens only). It knows nothing of pooling beyond that, nor of losses.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from embed_assets.encoder.fused_attention import Attended, Heads, Rotation, attend, attend_backward, rotation
from embed_assets.encoder.fused_lora import Adapters, LinearGroup
from embed_assets.encoder.packing import PackedRows, pooled_tokens

if TYPE_CHECKING:
    from torch import Tensor

PROJECTIONS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


@dataclass(frozen=True, slots=True)
class _Layer:
    norm: "Tensor"  # (dim,)
    qkv: LinearGroup
    output: LinearGroup
    mlp_norm: "Tensor"  # (dim,)
    gate_up: LinearGroup
    down: LinearGroup


@dataclass(slots=True)
class _Kept:
    """What one layer's backward needs of its forward."""

    x: "Tensor"  # (tokens, dim)
    scale: "Tensor"  # (tokens,)
    low_qkv: "Tensor"  # (tokens, 3 * rank)
    attended: Attended  # in the last layer only the pooled rows go on
    mlp_x: "Tensor"  # (rows, dim)
    mlp_scale: "Tensor"  # (rows,)
    low_gate_up: "Tensor"  # (rows, 2 * rank)
    gate_up: "Tensor | None"  # (rows, 2 * ffn); None: recomputed
    low_down: "Tensor"  # (rows, rank)


@dataclass(slots=True)
class Tape:
    """One forward's memory, consumed by its backward."""

    documents: Any
    turn: Rotation
    chosen: "Tensor | None"
    layers: list[_Kept] = field(default_factory=list)
    x: "Tensor | None" = None  # (rows, dim)
    scale: "Tensor | None" = None


class Qwen2Stack:
    """The stack's weights, regrouped. The adapters are trained, nothing else."""

    def __init__(self, model: Any, ops: Any, dtype: torch.dtype) -> None:
        config = model.config
        self.ops, self.dtype = ops, dtype
        self.dim: int = config.hidden_size
        self.ffn: int = config.intermediate_size
        self.eps: float = config.rms_norm_eps
        self.heads = Heads(
            query=config.num_attention_heads,
            key_value=config.num_key_value_heads,
            dim=model.layers[0].self_attn.head_dim,
            causal=bool(getattr(config, "is_causal", True)),
        )
        self._embedding = model.embed_tokens.weight.detach()
        self._rotary = model.rotary_emb
        self._norm = model.norm.weight.detach()
        self._layers = [self._regroup(layer) for layer in model.layers]
        groups = [group for layer in self._layers for group in (layer.qkv, layer.output, layer.gate_up, layer.down)]
        self.adapters = Adapters(groups, ops.ScaledCopies)
        self.depth = len(self._layers)

    def _regroup(self, layer: Any) -> _Layer:
        groups = {
            name: LinearGroup(
                [layer.get_submodule(path) for path in paths], self.dtype, block_diagonal=name == "gate_up"
            )
            for name, paths in PROJECTIONS.items()
        }
        return _Layer(
            norm=layer.input_layernorm.weight.detach(),
            mlp_norm=layer.post_attention_layernorm.weight.detach(),
            **groups,
        )

    @torch.no_grad()
    def forward(self, packed: PackedRows, pooling: str, *, keep: bool, recomputed: int = 0) -> tuple["Tensor", Tape]:
        """Final hidden states of the tokens that `pooling` reads (rows, dim): one of each document, or with mean all.

        Args:
            keep: whether a backward will follow.
            recomputed: in how many layers, from the first, gate and up projections are recomputed instead of kept.
        """
        self.adapters.refresh()
        chosen = pooled_tokens(packed, pooling)
        tape = Tape(self.ops.documents(packed), rotation(self._rotary, packed.positions), chosen)
        x, delta = self._embedding[packed.token_ids].to(self.dtype), None
        for index, layer in enumerate(self._layers):
            only = chosen if index == self.depth - 1 else None
            x, delta, kept = self._layer_forward(
                layer, x, delta, tape, only, keep=keep, keep_wide=keep and index >= recomputed
            )
            if keep and kept:
                tape.layers.append(kept)
        tape.x, normed, tape.scale = self.ops.add_rms_norm(x, delta, self._norm, self.eps, 0)
        return normed, tape

    def _layer_forward(
        self,
        layer: _Layer,
        x: "Tensor",
        delta: "Tensor | None",
        tape: Tape,
        only: "Tensor | None",
        *,
        keep: bool,
        keep_wide: bool,
    ) -> tuple["Tensor", "Tensor", _Kept | None]:
        """The layer's residual and what is to be added to it; what the backward needs, unless none follows."""
        ops = self.ops
        x, normed, scale = ops.add_rms_norm(x, delta, layer.norm, self.eps, layer.qkv.low)
        low_qkv = layer.qkv.lower(normed).contiguous()
        qkv = layer.qkv.of_lowered(normed)
        del normed
        projected, attended = attend(ops, layer.output, qkv, self.heads, tape.turn, tape.documents, only, keep=keep)
        residual = x if only is None else x[only]
        mlp_x, normed, mlp_scale = ops.add_rms_norm(residual, projected, layer.mlp_norm, self.eps, layer.gate_up.low)
        low_gate_up = layer.gate_up.lower(normed).contiguous()
        if not keep and not layer.gate_up.low:
            return mlp_x, layer.down.of_lowered(ops.swiglu_of(normed, layer.gate_up.forward_t, self.ffn)), None
        gate_up = layer.gate_up.of_lowered(normed)
        del normed, projected
        hidden, low_down = ops.activate(gate_up, "swiglu", self.ffn, layer.down.a)
        delta = layer.down.of_lowered(hidden)
        kept = _Kept(
            x, scale, low_qkv, attended, mlp_x, mlp_scale, low_gate_up, gate_up if keep_wide else None, low_down,
        )  # fmt: skip
        return mlp_x, delta, kept

    @torch.no_grad()
    def backward(self, tape: Tape, grad_hidden: "Tensor") -> None:
        """From the gradient of the final hidden states (rows, dim) to the adapters': `adapters.gradients` hands them out."""
        assert tape.x is not None and tape.scale is not None
        spare = self._layers[0].down.low
        grad = grad_hidden.new_zeros(len(tape.x), self.dim + spare, dtype=self.dtype)
        self.ops.rms_norm_backward_(grad_hidden.to(self.dtype), tape.x, tape.scale, self._norm, grad)
        for index in reversed(range(self.depth)):
            layer, kept = self._layers[index], tape.layers.pop()
            self._mlp_backward(layer, kept, grad)
            only = tape.chosen if index == self.depth - 1 else None
            grad = self._attention_backward(layer, kept, grad, tape, only, first=index == 0)

    def _mlp_backward(self, layer: _Layer, kept: _Kept, grad_: "Tensor") -> None:
        """`grad_` (rows, dim + spare): of the layer's output in, of the MLP's input out."""
        ops = self.ops
        gate_up = kept.gate_up
        if gate_up is None:
            _, normed, _ = ops.add_rms_norm(kept.mlp_x, None, layer.mlp_norm, self.eps, layer.gate_up.low)
            normed[:, self.dim :] = kept.low_gate_up
            gate_up = layer.gate_up.of_lowered(normed)
            del normed
        kept.gate_up = None
        low = layer.down.grad_low(grad_)
        grad_hidden = grad_ @ layer.down.backward  # (rows, ffn)
        ops.product_into(layer.down.grad_b, grad_[:, : self.dim].T, kept.low_down)
        ops.activate_backward_(
            gate_up, grad_hidden, "swiglu", self.ffn, low, kept.low_gate_up, layer.down.grad_a, layer.gate_up.grad_b
        )
        del grad_hidden
        grad_normed, low = layer.gate_up.grad_input(gate_up)
        self._norm_grad_a(layer.gate_up, low, kept.mlp_x, kept.mlp_scale, layer.mlp_norm)
        ops.rms_norm_backward_(grad_normed, kept.mlp_x, kept.mlp_scale, layer.mlp_norm, grad_)

    def _attention_backward(
        self, layer: _Layer, kept: _Kept, grad: "Tensor", tape: Tape, only: "Tensor | None", *, first: bool
    ) -> "Tensor":
        """Gradient of the layer's input (tokens, dim + spare), given that of the MLP's."""
        ops, columns = self.ops, self.heads.columns
        grad, grad_qkv = attend_backward(
            ops, layer.output, layer.qkv, grad, kept.attended, self.heads, tape.turn, tape.documents, only
        )
        ops.product_into(layer.qkv.grad_b, grad_qkv[:, :columns].T, kept.low_qkv)
        self._norm_grad_a(layer.qkv, grad_qkv[:, columns:], kept.x, kept.scale, layer.norm)
        if not first:  # below the first layer nothing is trained
            ops.rms_norm_backward_(grad_qkv @ layer.qkv.backward, kept.x, kept.scale, layer.norm, grad)
        return grad

    def _norm_grad_a(
        self, group: LinearGroup, grad_low: "Tensor", x: "Tensor", scale: "Tensor", norm: "Tensor"
    ) -> None:
        """A's gradient, grad_low^T @ norm(x), without recomputing the norm: its scale and weight are factors."""
        scaled = torch.mul(grad_low, scale[:, None], out=torch.empty_like(grad_low))
        self.ops.product_into(group.grad_a, scaled.T, x)
        group.grad_a *= norm
