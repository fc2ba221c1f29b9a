"""Arithmetic of a step by hand."""

from types import SimpleNamespace

import pytest

from embed_assets.training.flops import attention_flops, linear_parameters, training_flops

CONFIG = SimpleNamespace(
    model_type="qwen2", hidden_size=8, num_attention_heads=4, num_key_value_heads=2, intermediate_size=16,
    num_hidden_layers=3,
)  # fmt: skip


def test_by_hand() -> None:
    weights = 3 * (8 * 8 * 2 + 8 * 4 * 2 + 3 * 8 * 16)  # q and o; k and v; gate, up and down
    assert linear_parameters(CONFIG) == weights
    attention = 4 * (5**2 + 7**2) * 8 * 3 / 2  # scores and weighted sums, the lower half
    assert attention_flops(CONFIG, [5, 7]) == attention
    assert training_flops(CONFIG, [5, 7], adapter_parameters=10) == 12 * (4 * weights + 60) + 3 * attention


def test_the_real_shapes() -> None:
    """1.31 G weights in Qodo's layers, 303 M in e5-large's, 10.6 M in MiniLM's: docs of the models."""
    sizes = {
        "qwen2": (1536, 28, 12, 2, 8960, 1.310e9), "xlm-roberta": (1024, 24, 16, None, 4096, 302e6),
        "bert": (384, 6, 12, None, 1536, 10.6e6),
    }  # fmt: skip
    for model_type, (hidden, layers, heads, key_value, ffn, expected) in sizes.items():
        config = SimpleNamespace(
            model_type=model_type, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=key_value, intermediate_size=ffn,
        )  # fmt: skip
        assert linear_parameters(config) == pytest.approx(expected, rel=0.01)
