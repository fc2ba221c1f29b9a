"""The packed path: any transformers model over one packed row, with variable-length attention.

Registers one attention implementation with transformers. Given document boundaries it attends within documents only;
without them it is plain SDPA with its mask, so that the same model still runs padded. It knows nothing of LoRA,
losses or when this path is the right one.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

from embed_assets.encoder.packing import PackedRows, pack

if TYPE_CHECKING:
    import torch

IMPLEMENTATION = "packed_varlen"
"""Name of the attention implementation within transformers."""

FIRST_POSITION = {"bert": 0, "qwen2": 0, "jina_embeddings_v3": 0, "xlm-roberta": 2}
"""Position of a document's first token, by model type: XLM-R counts from its padding index + 1."""

VarlenAttention = Callable[..., "torch.Tensor"]
"""(query (tokens, heads, dim), key, value, boundaries, longest, causal, scale) -> (tokens, heads, dim)"""


class PackedAttentionError(RuntimeError):
    """Document boundaries did not reach every attention layer: documents would have read each other."""


class PackedEncoder(Protocol):
    """What this path needs of an encoder."""

    @property
    def model(self) -> Any:
        """A transformers model, possibly wrapped by PEFT."""
        ...

    @property
    def pooling(self) -> Literal["mean", "last", "cls"]: ...

    @property
    def device(self) -> Any: ...


@dataclass(slots=True)
class _Pass:
    """One packed forward under way."""

    calls: int = 0


_active: ContextVar[_Pass | None] = ContextVar("packed_pass", default=None)
_varlen: ContextVar[VarlenAttention | None] = ContextVar("varlen_attention", default=None)


def packed_embed(encoder: PackedEncoder, rows: Sequence[Sequence[int]]) -> "torch.Tensor":
    """Embeds token rows (special tokens included) in one forward: (rows, dim), float32, unit rows.

    Differentiable with respect to the trainable parameters when gradients are enabled. Raises `PackingError` for an
    empty row and `PackedAttentionError` if the model bypasses the registered attention.
    """
    import torch
    from torch.nn import functional

    packed = pack(rows, encoder.device)
    hidden = packed_hidden(encoder.model, packed)  # (tokens, dim)
    pooled = pool(hidden, packed, encoder.pooling)  # (rows, dim)
    return functional.normalize(pooled.to(torch.promote_types(pooled.dtype, torch.float32)), dim=1)


def packed_supported(encoder: PackedEncoder) -> str | None:
    """None when `packed_embed` gives this encoder's embeddings, else the reason why not."""
    model = _unwrapped(encoder.model)
    config = model.config
    if config.model_type not in FIRST_POSITION:
        return f"model type {config.model_type!r} has no packed positions; known: {', '.join(sorted(FIRST_POSITION))}"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return "the model has sliding-window layers"
    dropout = _attention_dropout(config)
    if model.training and dropout:
        return f"attention dropout is {dropout} and variable-length attention has none: call model.eval()"
    if _varlen.get() is not None:
        return None
    if str(getattr(encoder.device, "type", encoder.device)).split(":")[0] != "cuda":
        return f"variable-length attention needs CUDA, the encoder is on {encoder.device}"
    try:
        import torch.nn.attention.varlen
    except ImportError:
        import torch

        return f"torch {torch.__version__} has no variable-length attention: it came with 2.10"
    return None


@contextmanager
def varlen_attention(function: VarlenAttention) -> Iterator[None]:
    """Replaces the attention kernel, so that packing can be proved where the CUDA kernel does not run."""
    token = _varlen.set(function)
    try:
        yield
    finally:
        _varlen.reset(token)


def packed_hidden(model: Any, packed: PackedRows) -> "torch.Tensor":
    """Last hidden states over a packed row: (tokens, dim)."""
    import torch

    model = _unwrapped(model)
    config = model.config
    _register()
    if config._attn_implementation != IMPLEMENTATION:
        # Kept on the model: a checkpointed layer runs again during backward, and must attend as it did before.
        config._attn_implementation = IMPLEMENTATION
    arguments: dict[str, Any] = {
        "input_ids": packed.token_ids[None],
        "position_ids": (packed.positions + FIRST_POSITION[config.model_type])[None],
        "cu_seq_lens_q": packed.boundaries,
        "cu_seq_lens_k": packed.boundaries,
        "max_length_q": packed.longest,
        "max_length_k": packed.longest,
    }
    if getattr(config, "type_vocab_size", 0):
        arguments["token_type_ids"] = torch.zeros_like(arguments["input_ids"])
    if "use_cache" in inspect.signature(model.forward).parameters:
        arguments["use_cache"] = False
    device_type = packed.token_ids.device.type
    precision = torch.autocast(device_type, dtype=torch.bfloat16) if device_type == "cuda" else nullcontext()
    running = _Pass()
    token = _active.set(running)
    try:
        with precision:
            hidden: torch.Tensor = model(**arguments).last_hidden_state[0]
    finally:
        _active.reset(token)
    if running.calls < config.num_hidden_layers:
        raise PackedAttentionError(
            f"{config.model_type}: {running.calls} of {config.num_hidden_layers} layers used packed attention; "
            "use the padded path for this model"
        )
    return hidden


def pool(hidden: "torch.Tensor", packed: PackedRows, pooling: str) -> "torch.Tensor":
    """(tokens, dim) -> (rows, dim). Means are accumulated in float32 at least."""
    import torch

    if pooling == "last":
        return hidden[packed.last]
    if pooling == "cls":
        return hidden[packed.first]
    if pooling != "mean":
        raise ValueError(f"pooling {pooling!r} is unknown; allowed: mean, last, cls")
    wide = hidden[: packed.real_tokens].to(torch.promote_types(hidden.dtype, torch.float32))
    offsets = packed.boundaries[: packed.rows + 1].long()
    return torch.segment_reduce(wide, "mean", offsets=offsets, axis=0, unsafe=True)


def _unwrapped(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _attention_dropout(config: Any) -> float:
    for name in ("attention_probs_dropout_prob", "attention_dropout"):
        if getattr(config, name, None):
            return float(getattr(config, name))
    return 0.0


def _packed_attention(
    module: Any,
    query: "torch.Tensor",  # (1, heads, tokens, head_dim)
    key: "torch.Tensor",  # (1, kv_heads, tokens, head_dim)
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: "torch.Tensor | None" = None,
    max_length_q: int = 0,
    **kwargs: Any,
) -> tuple["torch.Tensor", None]:
    running = _active.get()
    if cu_seq_lens_q is None:
        if running is not None:
            raise PackedAttentionError(
                f"{type(module).__name__} got no document boundaries in a packed forward; use the padded path"
            )
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
        return output, None
    if dropout:
        raise PackedAttentionError(f"attention dropout {dropout} in a packed forward: call model.eval()")
    if running is not None:
        running.calls += 1
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))  # (tokens, heads, head_dim)
    causal = kwargs.get("is_causal")
    causal = module.is_causal if causal is None else causal
    attend = _varlen.get() or _cuda_varlen
    return attend(q, k, v, cu_seq_lens_q, max_length_q, bool(causal), scaling)[None], None


def _cuda_varlen(
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    boundaries: "torch.Tensor",
    longest: int,
    causal: bool,
    scale: float | None,
) -> "torch.Tensor":
    import torch
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (states.to(torch.bfloat16) for states in (query, key, value))
    grouped: dict[str, Any] = {"enable_gqa": True} if _takes_enable_gqa() and q.shape[1] != k.shape[1] else {}
    window = (-1, 0) if causal else (-1, -1)
    attended = varlen_attn(
        q, k, v, boundaries, boundaries, longest, longest, scale=scale, window_size=window, **grouped
    )
    assert isinstance(attended, torch.Tensor)
    return attended


@cache
def _takes_enable_gqa() -> bool:
    """torch 2.11 groups heads by itself and has no such argument; later versions ask for it."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def mask(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        """Without a mask of its own a packed row needs none; a padded batch keeps SDPA's."""
        if attention_mask is None and _active.get() is not None:
            return None
        return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)

    AttentionInterface.register(IMPLEMENTATION, _packed_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, mask)
