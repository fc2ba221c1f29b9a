"""BERT, XLM-R and jina-v3 (XLM-R with rotary positions) with LoRA over a packed row, forward and backward written out.

Layers normalise after adding, attend in both directions and use gelu; the three differ in their modules' names and in
positions. The embedding block is the model's own module: nothing below the first layer is trained. It knows nothing of
pooling beyond which tokens it reads, nor of losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from embed_assets.encoder.fused_attention import Attended, Heads, Rotation, attend, attend_backward, rotation
from embed_assets.encoder.fused_lora import Adapters, LinearGroup
from embed_assets.encoder.packing import PackedRows, pooled_tokens

if TYPE_CHECKING:
    from torch import Tensor

BERT_MODULES = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "output": ("attention.output.dense",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
    "norm": ("attention.output.LayerNorm",),
    "mlp_norm": ("output.LayerNorm",),
}
JINA_MODULES = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.o_proj",),
    "up": ("mlp.fc1",),
    "down": ("mlp.fc2",),
    "norm": ("post_attention_layernorm",),
    "mlp_norm": ("post_mlp_layernorm",),
}
MODULES = {"bert": BERT_MODULES, "xlm-roberta": BERT_MODULES, "jina_embeddings_v3": JINA_MODULES}
GROUPS = ("qkv", "output", "up", "down")


def layers_of(model: Any) -> Sequence[Any]:
    """The model's transformer layers."""
    layers: Sequence[Any] = model.layers if model.config.model_type == "jina_embeddings_v3" else model.encoder.layer
    return layers


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: LinearGroup
    output: LinearGroup
    up: LinearGroup
    down: LinearGroup
    norm: Any
    mlp_norm: Any


@dataclass(slots=True)
class _Kept:
    """What one layer's backward needs of its forward. `x` and `mlp_x` carry their low-rank products beside them."""

    x: "Tensor"  # (tokens, dim + 3 * rank)
    attended: Attended  # in the last layer only the pooled rows go on
    total: "Tensor"  # (rows, dim)
    mean: "Tensor"  # (rows,)
    scale: "Tensor"  # (rows,)
    mlp_x: "Tensor"  # (rows, dim + rank)
    up: "Tensor | None"  # (rows, ffn); None: recomputed
    low_down: "Tensor"  # (rows, rank)
    mlp_total: "Tensor"  # (rows, dim)
    mlp_mean: "Tensor"
    mlp_scale: "Tensor"


@dataclass(slots=True)
class Tape:
    """One forward's memory, consumed by its backward."""

    documents: Any
    turn: Rotation | None
    chosen: "Tensor | None"
    layers: list[_Kept] = field(default_factory=list)


class BertStack:
    """The stack's weights, regrouped. The adapters are trained, nothing else."""

    def __init__(self, model: Any, ops: Any, dtype: torch.dtype, first_position: int) -> None:
        config = model.config
        self.ops, self.dtype = ops, dtype
        self.dim: int = config.hidden_size
        self.ffn: int = config.intermediate_size
        self.heads = Heads(
            query=config.num_attention_heads,
            key_value=config.num_attention_heads,
            dim=config.hidden_size // config.num_attention_heads,
            causal=False,
        )
        self._first_position = first_position
        self._embeddings = model.embeddings
        self._rotary = getattr(model, "rotary_emb", None)
        self._layers = [self._regroup(layer, MODULES[config.model_type]) for layer in layers_of(model)]
        groups = [group for layer in self._layers for group in (layer.qkv, layer.output, layer.up, layer.down)]
        self.adapters = Adapters(groups, ops.ScaledCopies)
        self.depth = len(self._layers)

    def _regroup(self, layer: Any, modules: dict[str, tuple[str, ...]]) -> _Layer:
        groups = {
            name: LinearGroup(
                [layer.get_submodule(path) for path in modules[name]], self.dtype, block_diagonal=name == "up"
            )
            for name in GROUPS
        }
        norms = {name: layer.get_submodule(modules[name][0]) for name in ("norm", "mlp_norm")}
        return _Layer(**groups, **norms)

    @torch.no_grad()
    def forward(self, packed: PackedRows, pooling: str, *, keep: bool, recomputed: int = 0) -> tuple["Tensor", Tape]:
        """Final hidden states of the tokens that `pooling` reads (rows, dim): one of each document, or with mean all.

        Args:
            keep: whether a backward will follow.
            recomputed: in how many layers, from the first, the MLP's inner states are recomputed instead of kept.
        """
        self.adapters.refresh()
        chosen = pooled_tokens(packed, pooling)
        turn = None if self._rotary is None else rotation(self._rotary, packed.positions)
        tape = Tape(self.ops.documents(packed), turn, chosen)
        embedded = self._embeddings(
            input_ids=packed.token_ids[None],
            position_ids=(packed.positions + self._first_position)[None],
            token_type_ids=torch.zeros_like(packed.token_ids)[None],
        )[0]
        x = embedded.new_empty(len(embedded), self.dim + self._layers[0].qkv.low, dtype=self.dtype)
        x[:, : self.dim] = embedded
        for index, layer in enumerate(self._layers):
            last = index == self.depth - 1
            spare = 0 if last else self._layers[index + 1].qkv.low
            x, kept = self._layer_forward(
                layer, x, tape, chosen if last else None, spare, keep=keep, keep_wide=keep and index >= recomputed
            )
            if keep:
                tape.layers.append(kept)
        return x, tape

    def _layer_forward(
        self, layer: _Layer, x: "Tensor", tape: Tape, only: "Tensor | None", spare: int, *, keep: bool, keep_wide: bool
    ) -> tuple["Tensor", _Kept]:
        ops = self.ops
        layer.qkv.lower(x)
        qkv = layer.qkv.of_lowered(x)
        projected, attended = attend(ops, layer.output, qkv, self.heads, tape.turn, tape.documents, only, keep=keep)
        residual = x if only is None else x[only]
        total, mlp_x, mean, scale = ops.add_layer_norm(
            residual, projected, layer.norm.weight, layer.norm.bias, layer.norm.eps, layer.up.low
        )
        layer.up.lower(mlp_x)
        up = layer.up.of_lowered(mlp_x)
        hidden, low_down = ops.activate(up, "gelu", self.ffn, layer.down.a)
        mlp_total, output, mlp_mean, mlp_scale = ops.add_layer_norm(
            mlp_x, layer.down.of_lowered(hidden), layer.mlp_norm.weight, layer.mlp_norm.bias, layer.mlp_norm.eps, spare
        )
        kept = _Kept(
            x, attended, total, mean, scale, mlp_x, up if keep_wide else None, low_down, mlp_total, mlp_mean, mlp_scale,
        )  # fmt: skip
        return output, kept

    @torch.no_grad()
    def backward(self, tape: Tape, grad_hidden: "Tensor") -> None:
        """From the gradient of the final hidden states (rows, dim) to the adapters': `adapters.gradients` hands them out."""
        grad = grad_hidden.new_empty(len(grad_hidden), self.dim + self._layers[0].down.low, dtype=self.dtype)
        grad[:, : self.dim] = grad_hidden
        for index in reversed(range(self.depth)):
            layer, kept = self._layers[index], tape.layers.pop()
            self._mlp_backward(layer, kept, grad)
            only = tape.chosen if index == self.depth - 1 else None
            grad = self._attention_backward(layer, kept, grad, tape, only, first=index == 0)

    def _mlp_backward(self, layer: _Layer, kept: _Kept, grad_: "Tensor") -> None:
        """`grad_` (rows, dim + spare): of the layer's output in, of the attention block's sum out."""
        ops, dim = self.ops, self.dim
        up = layer.up.of_lowered(kept.mlp_x) if kept.up is None else kept.up
        kept.up = None
        ops.layer_norm_backward_(None, kept.mlp_total, kept.mlp_mean, kept.mlp_scale, layer.mlp_norm.weight, grad_)
        low = layer.down.grad_low(grad_)
        grad_hidden = grad_ @ layer.down.backward  # (rows, ffn)
        ops.product_into(layer.down.grad_b, grad_[:, :dim].T, kept.low_down)
        ops.activate_backward_(
            up, grad_hidden, "gelu", self.ffn, low, kept.mlp_x[:, dim:], layer.down.grad_a, layer.up.grad_b
        )
        grad_mlp, low = layer.up.grad_input(up)
        ops.product_into(layer.up.grad_a, low.T, kept.mlp_x[:, :dim])
        ops.layer_norm_backward_(grad_mlp, kept.total, kept.mean, kept.scale, layer.norm.weight, grad_)

    def _attention_backward(
        self, layer: _Layer, kept: _Kept, grad: "Tensor", tape: Tape, only: "Tensor | None", *, first: bool
    ) -> "Tensor":
        """Gradient of the layer's input (tokens, dim + spare), given that of the attention block's sum."""
        ops, dim, columns = self.ops, self.dim, self.heads.columns
        grad, grad_qkv = attend_backward(
            ops, layer.output, layer.qkv, grad, kept.attended, self.heads, tape.turn, tape.documents, only
        )
        ops.product_into(layer.qkv.grad_b, grad_qkv[:, :columns].T, kept.x[:, dim:])
        ops.product_into(layer.qkv.grad_a, grad_qkv[:, columns:].T, kept.x[:, :dim])
        if not first:  # below the first layer nothing is trained
            grad[:, :dim].addmm_(grad_qkv, layer.qkv.backward)
        return grad
