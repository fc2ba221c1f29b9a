"""The fused path: hand-written forward and backward of whole models with LoRA, over one packed row.

On CUDA it runs Triton kernels and flash attention; anywhere else the same layers run on plain torch, slowly, which is
how the mathematics is proved. It knows nothing of losses: the result is an ordinary tensor in autograd's graph.
"""

import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embed_assets.encoder.fused_memory import free_device_bytes, layer_weights, layers_to_recompute
from embed_assets.encoder.packed import FIRST_POSITION, PackedEncoder, pool
from embed_assets.encoder.packing import MULTIPLE, PackedRows, pack

if TYPE_CHECKING:
    import torch

HEAD_DIMENSIONS = (16, 32, 64, 128)
"""Of the kernels: powers of two that flash attention takes."""

_stacks: "weakref.WeakKeyDictionary[Any, tuple[tuple[Any, ...], tuple[Any, Any]]]" = weakref.WeakKeyDictionary()
_building = threading.Lock()
_function: Any = None


def fused_embed(
    encoder: PackedEncoder,
    rows: Sequence[Sequence[int]],
    *,
    recomputed: int | None = None,
    activation_budget: int | None = None,
) -> "torch.Tensor":
    """Embeds token rows (special tokens included) in one forward: (rows, dim), float32, unit rows.

    Differentiable with respect to the adapter's parameters when gradients are enabled.

    Args:
        recomputed: layers whose widest activations are recomputed in the backward instead of kept; when not given, as
            many as it takes to stay within `activation_budget`.
        activation_budget: bytes; 95% of the device's free memory when not given.

    Raises:
        PackingError: no rows, or an empty one.
    """
    import torch
    from torch.nn import functional

    model = _unwrapped(encoder.model)
    stack, graphs = _stack(model)
    trained = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in stack.adapters.parameters)
    pooling = encoder.pooling
    if not trained:
        packed = pack(rows, encoder.device)
        hidden, _ = stack.forward(packed, pooling, keep=False)
    else:
        tokens = sum(map(len, rows))
        multiple = _graph_multiple(model, tokens) if graphs and graphs.free else None
        shape = {"multiple": multiple, "longest_multiple": 512, "rows_multiple": 16} if multiple else {}
        packed = pack(rows, encoder.device, **shape)
        if recomputed is None:
            if activation_budget is None and encoder.device.type == "cuda":
                activation_budget = int(0.95 * free_device_bytes(encoder.device))
            recomputed = layers_to_recompute(model.config, len(packed.token_ids), activation_budget, pooling=pooling)
        hidden = _autograd_function().apply(
            stack, graphs if multiple else None, packed, pooling, recomputed, *stack.adapters.parameters
        )
    pooled = pool(hidden, packed, pooling) if pooling == "mean" else hidden  # (rows, dim)
    return functional.normalize(pooled.to(torch.promote_types(pooled.dtype, torch.float32)), dim=1)


def fused_supported(encoder: PackedEncoder) -> str | None:
    """None when `fused_embed` gives this encoder's embeddings fast, else the reason why not."""
    if str(getattr(encoder.device, "type", encoder.device)).split(":")[0] != "cuda":
        return f"the fused kernels need CUDA, the encoder is on {encoder.device}"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "the fused kernels need Triton, which torch's CUDA builds for Linux bring along"
    import torch

    if torch.cuda.get_device_capability(encoder.device) < (8, 0):
        return f"the fused kernels need bfloat16 matrix units; {torch.cuda.get_device_name(encoder.device)} has none"
    return layers_problem(_unwrapped(encoder.model))


def computed_tokens(encoder: PackedEncoder, tokens: int) -> int:
    """Tokens that a training step of `tokens` real ones computes, padding to whole tiles or a graph's shape included."""
    multiple = MULTIPLE
    if encoder.device.type == "cuda":
        multiple = _graph_multiple(_unwrapped(encoder.model), tokens) or MULTIPLE
    return -(-tokens // multiple) * multiple


def layers_problem(model: Any) -> str | None:
    """Why the layers of this model cannot be fused, whatever the device; None when they can."""
    from embed_assets.encoder.fused_lora import adapter_problem

    config = model.config
    if config.model_type not in FIRST_POSITION:
        return f"model type {config.model_type!r} is not written out; known: {', '.join(sorted(FIRST_POSITION))}"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return "the model has sliding-window layers"
    activation, expected = config.hidden_act, "silu" if config.model_type == "qwen2" else "gelu"
    if activation != expected:
        return f"the model's activation is {activation!r}; the kernels know {expected!r}"
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if head_dim not in HEAD_DIMENSIONS:
        return f"heads have {head_dim} dimensions; the kernels know {', '.join(map(str, HEAD_DIMENSIONS))}"
    if config.hidden_size % 8 or config.intermediate_size % 8:
        return f"sizes {config.hidden_size} and {config.intermediate_size} are not multiples of 8"
    dropout = max(getattr(config, "hidden_dropout_prob", 0.0), getattr(config, "attention_probs_dropout_prob", 0.0))
    if model.training and dropout:
        return f"the model is in training mode with dropout {dropout}: call model.eval()"
    linears = _linears(model)
    if problem := adapter_problem(linears):
        return problem
    adapters = {id(parameter) for linear in linears for parameter in _adapter_parameters(linear)}
    others = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in adapters
    ]
    if others and adapters:
        return f"parameters outside the adapters are trained ({others[0]})"
    return None


def _unwrapped(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _linears(model: Any) -> list[Any]:
    """The linear layers that a stack regroups, in its order."""
    from embed_assets.encoder import fused_bert, fused_qwen2

    if model.config.model_type == "qwen2":
        layers, groups = model.layers, list(fused_qwen2.PROJECTIONS.values())
    else:
        modules = fused_bert.MODULES[model.config.model_type]
        layers, groups = fused_bert.layers_of(model), [modules[name] for name in fused_bert.GROUPS]
    return [layer.get_submodule(path) for layer in layers for paths in groups for path in paths]


def _adapter_parameters(linear: Any) -> list[Any]:
    if not hasattr(linear, "lora_A"):
        return []
    return [
        part[name].weight
        for name in linear.active_adapters
        if name in linear.lora_A
        for part in (linear.lora_A, linear.lora_B)
    ]


def _stack(model: Any) -> tuple[Any, Any]:
    """The model's regrouped weights, and on CUDA its graphs; built once, and again when an adapter comes, goes or moves."""
    import torch

    linears = _linears(model)
    identity = tuple(
        (id(linear), *(parameter.data_ptr() for parameter in _adapter_parameters(linear))) for linear in linears
    )
    known = _stacks.get(model)
    if known is not None and known[0] == identity:
        return known[1]
    if problem := layers_problem(model):
        raise ValueError(f"the fused path cannot run this model: {problem}; use the packed or the padded path")
    with _building, torch.inference_mode(False), torch.no_grad():
        known = _stacks.get(model)
        if known is not None and known[0] == identity:
            return known[1]  # another thread was faster
        stack = _built(model, model.get_input_embeddings().weight)
        built = (stack, _graphs(stack, next(model.parameters()).device))
        _stacks[model] = (identity, built)
    return built


def _built(model: Any, embedding: "torch.Tensor") -> Any:
    import torch

    from embed_assets.encoder import fused_math
    from embed_assets.encoder.fused_bert import BertStack
    from embed_assets.encoder.fused_qwen2 import Qwen2Stack

    ops: Any = fused_math
    dtype = embedding.dtype
    if embedding.device.type == "cuda":
        from embed_assets.encoder import fused_kernels

        ops, dtype = fused_kernels, torch.bfloat16
    if model.config.model_type == "qwen2":
        return Qwen2Stack(model, ops, dtype)
    return BertStack(model, ops, dtype, FIRST_POSITION[model.config.model_type])


def _graphs(stack: Any, device: "torch.device") -> Any:
    if device.type != "cuda":
        return None
    from embed_assets.encoder.fused_graphs import GraphCache

    return GraphCache(stack)


def _graph_multiple(model: Any, tokens: int) -> int | None:
    """To what multiple a row of so many tokens is padded for a graph; None where it does not pay."""
    from embed_assets.encoder.fused_graphs import graph_multiple

    return graph_multiple(tokens, layer_weights(model.config))


def _autograd_function() -> Any:
    """Made on first use: its base class is torch's."""
    global _function
    if _function is not None:
        return _function
    import torch

    class FusedStack(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, stack: Any, graphs: Any, packed: PackedRows, pooling: str, recomputed: int, *parameters: Any
        ) -> "torch.Tensor":
            ctx.stack, ctx.graphs = stack, graphs
            replayed = graphs and graphs.forward(packed, pooling, recomputed)
            if replayed:
                hidden, ctx.tape, ctx.lease = replayed
            else:
                ctx.graphs = None
                hidden, ctx.tape = stack.forward(packed, pooling, keep=True, recomputed=recomputed)
            return hidden

        @staticmethod
        def backward(ctx: Any, *grads: "torch.Tensor") -> Any:
            if ctx.tape is None:
                raise RuntimeError("a fused forward's memory is used up by its first backward: run the forward again")
            tape, ctx.tape, ctx.lease = ctx.tape, None, None
            (ctx.graphs or ctx.stack).backward(tape, grads[0])
            return None, None, None, None, None, *ctx.stack.adapters.gradients()

    _function = FusedStack
    return _function
