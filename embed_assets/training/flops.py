"""How much arithmetic a training step is, and how much of it the device could do: model FLOP utilisation (MFU).

Counted is what the model needs on real tokens: the forward, the gradients of the inputs and those of the adapter.
Padding and what is recomputed to save memory do not count (Chowdhery et al., 2022, appendix B).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

PEAK_FLOPS = {
    "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "B200": 2250e12, "A100": 312e12,
    "L40S": 362e12, "L40": 181e12, "L4": 121e12, "A10G": 70e12, "RTX 4090": 165e12,
}  # fmt: skip
"""Dense bfloat16 products with float32 sums, per second, by the vendor's data sheet; a fifth less is sustained."""


def training_flops(config: Any, lengths: Sequence[int] | np.ndarray, *, adapter_parameters: int) -> float:
    """Of one step over texts of the given lengths, in which only an adapter is trained.

    Args:
        config: the transformers configuration.
        lengths: of the texts, in tokens.
        adapter_parameters: of all layers together.
    """
    tokens = float(np.sum(lengths))
    return tokens * (4 * linear_parameters(config) + 6 * adapter_parameters) + 3 * attention_flops(config, lengths)


def linear_parameters(config: Any) -> int:
    """Weights of the layers' matrices: what a token is multiplied with."""
    dim, heads = int(config.hidden_size), int(config.num_attention_heads)
    head_dim = int(getattr(config, "head_dim", None) or dim // heads)
    key_value = int(getattr(config, "num_key_value_heads", None) or heads) * head_dim
    projections = 3 if config.model_type == "qwen2" else 2
    per_layer = 2 * dim * heads * head_dim + 2 * dim * key_value + projections * dim * int(config.intermediate_size)
    return int(config.num_hidden_layers) * per_layer


def attention_flops(config: Any, lengths: Sequence[int] | np.ndarray) -> float:
    """Of the scores and the weighted sums, half of them where attention is causal."""
    squares = float(np.square(np.asarray(lengths, dtype=np.float64)).sum())
    causal = config.model_type == "qwen2" and getattr(config, "is_causal", True)
    return 4 * squares * int(config.hidden_size) * int(config.num_hidden_layers) * (0.5 if causal else 1.0)


def peak_flops(device: "torch.device") -> float | None:
    """What the device can do per second; None where no data sheet is known."""
    if device.type != "cuda":
        return None
    import torch

    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)
