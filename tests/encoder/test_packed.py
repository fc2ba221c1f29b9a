"""The packed path gives what each row gives alone, forward and backward, for every architecture of the catalogue."""

from typing import Any

import pytest
import torch

from embed_assets.encoder.packed import (
    IMPLEMENTATION,
    PackedAttentionError,
    packed_embed,
    packed_hidden,
    packed_supported,
    varlen_attention,
)
from embed_assets.encoder.packing import PackingError, pack
from tests.encoder.tiny_encoders import ROWS, lora_gradients, padded_reference, reference_attention, tiny_encoder

ARCHITECTURES = ("qwen2", "bert", "xlm-roberta", "jina_embeddings_v3")


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_packed_equals_each_row_alone(model_type: str) -> None:
    encoder = tiny_encoder(model_type)
    with varlen_attention(reference_attention):
        assert packed_supported(encoder) is None
        packed = packed_embed(encoder, ROWS)
        gradients = lora_gradients(encoder, packed)
    alone = padded_reference(encoder, ROWS)
    torch.testing.assert_close(packed, alone, atol=2e-6, rtol=1e-5)
    for name, expected in lora_gradients(encoder, alone).items():
        torch.testing.assert_close(gradients[name], expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_every_pooling(pooling: str) -> None:
    encoder = tiny_encoder("bert", pooling=pooling, lora=False)
    with varlen_attention(reference_attention):
        torch.testing.assert_close(packed_embed(encoder, ROWS), padded_reference(encoder, ROWS), atol=2e-6, rtol=1e-5)


def test_bidirectional_qwen2() -> None:
    encoder = tiny_encoder("qwen2", causal=False)
    with varlen_attention(reference_attention):
        torch.testing.assert_close(packed_embed(encoder, ROWS), padded_reference(encoder, ROWS), atol=2e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")
def test_checkpointed_layers_recompute_with_the_same_boundaries() -> None:
    encoder = tiny_encoder("bert")
    expected = lora_gradients(encoder, padded_reference(encoder, ROWS))
    encoder.model.config.attention_probs_dropout_prob = 0.0
    for module in encoder.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    encoder.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    encoder.model.train()
    with varlen_attention(reference_attention):
        gradients = lora_gradients(encoder, packed_embed(encoder, ROWS))
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)


def test_padded_batches_still_work_after_a_packed_one() -> None:
    encoder = tiny_encoder("bert", lora=False)
    ids = torch.tensor([[5, 9, 13, 0, 0], [33, 34, 35, 36, 37]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    before = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
    with varlen_attention(reference_attention):
        packed_embed(encoder, ROWS)
    assert encoder.model.config._attn_implementation == IMPLEMENTATION
    after = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(after, before)


def test_raises_when_boundaries_do_not_reach_the_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder("bert", lora=False)
    original = type(encoder.model).forward

    def forgetful(self: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("cu_seq_lens_q")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(encoder.model), "forward", forgetful)
    with varlen_attention(reference_attention), pytest.raises(PackedAttentionError, match="no document boundaries"):
        packed_embed(encoder, ROWS)


def test_raises_when_the_model_bypasses_the_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder("bert", lora=False)

    def own_attention(*args: Any, **kwargs: Any) -> Any:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(*args, **kwargs)

    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    monkeypatch.setattr(ALL_ATTENTION_FUNCTIONS, "get_interface", lambda *_: own_attention)
    with varlen_attention(reference_attention), pytest.raises(PackedAttentionError, match="0 of 3 layers"):
        packed_hidden(encoder.model, pack(ROWS, "cpu"))


def test_reasons_why_not() -> None:
    assert "CUDA" in str(packed_supported(tiny_encoder("bert")))
    training = tiny_encoder("bert")
    training.model.train()
    assert "dropout is 0.1" in str(packed_supported(training))
    unknown = tiny_encoder("bert")
    unknown.model.config.model_type = "mpnet"
    assert "'mpnet'" in str(packed_supported(unknown))


def test_packing_pads_with_documents_of_its_own() -> None:
    packed = pack(ROWS, "cpu", multiple=32)
    assert packed.token_ids.shape == (32,)
    assert packed.real_tokens == 20
    assert packed.boundaries.tolist() == [0, 3, 4, 11, 16, 20, 32]
    assert packed.positions[:11].tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 6]
    assert packed.first.tolist() == [0, 3, 4, 11, 16]
    assert packed.last.tolist() == [2, 3, 10, 15, 19]


def test_no_dummy_is_longer_than_the_longest() -> None:
    for rows in ([[1] * 70] * 3, [[1] * 300], [[1]] * 5, [[1] * 256]):
        packed = pack(rows, "cpu", multiple=1024)
        lengths = packed.boundaries.diff()
        assert int(lengths.max()) <= packed.longest
        assert int(packed.boundaries[-1]) == len(packed.token_ids)
        assert len(packed.token_ids) % 1024 == 0


def test_empty_rows_are_refused() -> None:
    with pytest.raises(PackingError, match="row 1 is empty"):
        pack([[1], []], "cpu")
    with pytest.raises(PackingError, match="no token rows"):
        pack([], "cpu")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_cuda_kernel_agrees_with_float32(model_type: str) -> None:
    encoder = tiny_encoder(model_type, device="cuda", hidden_size=64)
    alone = padded_reference(encoder, ROWS)
    expected = lora_gradients(encoder, alone)
    packed = packed_embed(encoder, ROWS)
    gradients = lora_gradients(encoder, packed)
    assert float(torch.cosine_similarity(packed, alone).detach().min()) > 0.999
    flat, flat_expected = (torch.cat([g[n].flatten() for n in expected]) for g in (gradients, expected))
    assert float(torch.cosine_similarity(flat, flat_expected, dim=0)) > 0.99
