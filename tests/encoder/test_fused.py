"""The fused path is held to autograd over transformers' own modules; its kernels to the same operations in torch."""

import pytest
import torch

from embed_assets.encoder.fused import (
    fused_embed,
)
from tests.encoder.tiny_encoders import ROWS, lora_gradients, padded_reference, tiny_encoder

ARCHITECTURES = ("qwen2", "bert", "xlm-roberta", "jina_embeddings_v3")


@pytest.mark.parametrize("model_type", ARCHITECTURES)
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("recomputed", [0, 2])
def test_equals_autograd_on_each_row_alone(model_type: str, pooling: str, recomputed: int) -> None:
    encoder = tiny_encoder(model_type, pooling=pooling, hidden_size=64)
    alone = padded_reference(encoder, ROWS)
    expected = lora_gradients(encoder, alone)
    fused = fused_embed(encoder, ROWS, recomputed=recomputed)
    torch.testing.assert_close(fused, alone, atol=5e-6, rtol=1e-5)
    for name, gradient in lora_gradients(encoder, fused).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=2e-3)
