"""Small random models of the true architectures, and the reference that every path is held to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional

TARGETS = {
    "qwen2": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "bert": ["query", "key", "value", "dense"],
    "xlm-roberta": ["query", "key", "value", "dense"],
    "jina_embeddings_v3": ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"],
}
ROWS = [[5, 9, 13], [7], [21, 3, 8, 40, 11, 6, 19], [33, 34, 35, 36, 37], [5, 9, 13, 2]]


@dataclass(frozen=True)
class TinyEncoder:
    model: Any
    pooling: Literal["mean", "last", "cls"]
    device: torch.device


def tiny_encoder(
    model_type: str,
    *,
    lora: bool = True,
    pooling: str | None = None,
    causal: bool = True,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    **overrides: Any,
) -> TinyEncoder:
    """A random model with LoRA injected in place, both of its factors nonzero, so that all gradients are live."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoConfig, AutoModel

    sizes: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    }
    if model_type == "qwen2":
        sizes |= {"num_key_value_heads": 2, "is_causal": causal}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **(sizes | overrides))
    extra = {} if model_type == "qwen2" else {"add_pooling_layer": False}
    model = AutoModel.from_config(config, attn_implementation="sdpa", **extra).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(
            parameter, mean=1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, std=0.2
        )
    for module in model.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = causal and model_type == "qwen2"
    model = model.to(device=device, dtype=dtype)
    if lora:
        settings = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS[model_type], lora_dropout=0.0)
        inject_adapter_in_model(settings, model)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn(parameter.shape).to(device) * 0.2
    default = "last" if model_type == "qwen2" else "mean"
    return TinyEncoder(model, pooling or default, torch.device(device))  # type: ignore[arg-type]


def padded_reference(encoder: TinyEncoder, rows: Sequence[Sequence[int]]) -> torch.Tensor:  # (rows, dim)
    """One row at a time, so that there is nothing to leak and nothing to mask."""
    outputs = []
    for row in rows:
        extra = {"use_cache": False} if encoder.model.config.model_type == "qwen2" else {}
        ids = torch.tensor([row], device=encoder.device)
        states = encoder.model(input_ids=ids, **extra).last_hidden_state[0]
        pooled = {"last": states[-1], "cls": states[0], "mean": states.mean(0)}[encoder.pooling]
        outputs.append(functional.normalize(pooled.float(), dim=0))
    return torch.stack(outputs)


def lora_gradients(encoder: TinyEncoder, embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a contrastive-like loss, by parameter name."""
    names, parameters = zip(*((n, p) for n, p in encoder.model.named_parameters() if p.requires_grad), strict=True)
    scores = embeddings @ embeddings.T * 5
    loss = functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device).roll(1))
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def reference_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """Block-diagonal SDPA: what the CUDA kernel computes."""
    tokens = torch.arange(len(query))
    document = torch.searchsorted(boundaries[1:].long(), tokens, right=True)
    allowed = document[:, None] == document[None, :]
    assert int((boundaries[1:] - boundaries[:-1]).max()) <= longest
    if causal:
        allowed &= tokens[:, None] >= tokens[None, :]
    q, k, v = (states.transpose(0, 1) for states in (query, key, value))
    k, v = (states.repeat_interleave(len(q) // len(k), 0) for states in (k, v))
    attended = functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=allowed, scale=scale)
    return attended[0].transpose(0, 1)
