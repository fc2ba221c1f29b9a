"""What the fused path needs of a device's memory, computed from a model's sizes before anything is allocated.

Checked against measured peaks in `benchmarks/reports`: within a tenth. It knows nothing of losses or steps.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def fused_memory_bytes(config: Any, tokens: int, recomputed: int = 0, *, rank: int = 16, pooling: str = "mean") -> int:
    """Peak device memory of one training forward and backward, weights and adapter state included.

    Args:
        config: the transformers configuration.
        tokens: of the packed row.
        recomputed: layers whose widest activations are recomputed.
        rank: of the adapters.
        pooling: of the encoder.
    """
    shape = _Shape(config, rank)
    weights = 2 * (shape.embedding + shape.depth * shape.linear)
    return (
        weights
        + adapter_bytes(config, rank=rank)
        + activation_bytes(config, tokens, recomputed, rank=rank, pooling=pooling)
    )


def adapter_bytes(config: Any, *, rank: int) -> int:
    """Masters, gradients, moments and the rounded copy of adapters of all layers."""
    shape = _Shape(config, rank)
    return 20 * shape.depth * shape.adapter


def activation_bytes(config: Any, tokens: int, recomputed: int = 0, *, rank: int = 16, pooling: str = "mean") -> int:
    """The part of `fused_memory_bytes` that grows with the tokens."""
    shape = _Shape(config, rank, pooling)
    kept = shape.whole * shape.kept_bytes + max(0, shape.whole - recomputed) * shape.wide_bytes
    passing = shape.wide_bytes if recomputed >= shape.whole else 0  # of the layer at work, where none keeps them
    return tokens * (kept + passing + shape.working_bytes)


def layers_to_recompute(config: Any, tokens: int, free_bytes: int | None, *, pooling: str = "mean") -> int:
    """The fewest layers that must recompute for the activations to fit; all of them when nothing fits."""
    if free_bytes is None:
        return 0
    shape = _Shape(config, 16, pooling)
    excess = activation_bytes(config, tokens, pooling=pooling) - free_bytes
    fewest = max(0, -(-excess // max(1, tokens * shape.wide_bytes)))
    return fewest if fewest < shape.whole else shape.depth


def layer_weights(config: Any) -> int:
    """Weights of one layer's matrices."""
    return _Shape(config, 16).linear


def free_device_bytes(device: "torch.device") -> int:
    """What this process may still allocate on a CUDA device: the driver's free memory and the allocator's unused part.

    A limit set with `torch.cuda.set_per_process_memory_fraction` counts.
    """
    import torch

    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    limit = int(total * torch.cuda.get_per_process_memory_fraction(device)) - allocated
    return max(0, min(int(free) + int(torch.cuda.memory_reserved(device)) - allocated, limit))


class _Shape:
    """Sizes of a model, in elements, and of its activations, in bytes per token."""

    def __init__(self, config: Any, rank: int, pooling: str = "mean") -> None:
        dim, ffn = int(config.hidden_size), int(config.intermediate_size)
        self.depth = int(config.num_hidden_layers)
        heads = int(config.num_attention_heads)
        head_dim = int(getattr(config, "head_dim", None) or dim // heads)
        key_value = int(getattr(config, "num_key_value_heads", heads)) * head_dim
        qkv = heads * head_dim + 2 * key_value
        gated = 2 if config.model_type == "qwen2" else 1
        self.embedding = int(config.vocab_size) * dim
        self.linear = dim * qkv + heads * head_dim * dim + (gated + 1) * dim * ffn
        self.adapter = rank * (3 * dim + qkv + heads * head_dim + dim + gated * (dim + ffn) + ffn + dim)
        # Of a last layer that only pooled tokens leave, little is there when the one before it is at its widest.
        self.whole = self.depth - (gated == 2 and pooling != "mean")
        normed = 0 if gated == 2 else 2 * dim  # post-norm layers keep both norms' inputs and outputs
        self.kept_bytes = 2 * (2 * dim + normed + qkv + heads * head_dim + 7 * rank) + 4 * (heads + 4)
        self.wide_bytes = 2 * gated * ffn
        # of one layer at a time: hidden states or their gradient, a few states of the model's size, partial sums
        self.working_bytes = 2 * (ffn + rank + (2 if gated == 2 else 8) * dim) + 40 * rank
