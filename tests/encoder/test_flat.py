"""The flat path gives the vectors and the adapter gradients of one row at a time, on one core and on several."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embed_assets.encoder import flat_encode, flat_lora
from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.flat import FlatRows, flat_supported, flatten, pool_rows
from embed_assets.encoder.flat_encode import encoding_stack, flat_batches
from embed_assets.encoder.flat_lora import divide, flat_embed, lora_stack
from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.padded import padded_embed
from embed_assets.encoder.paths import choose_path, computed_tokens, embed_tokens
from embed_assets.encoder.resolve import resolve
from tests.encoder.tiny_encoders import ROWS, TinyEncoder, lora_gradients, padded_reference, tiny_encoder
from tests.tiny_models import CORPUS, build

EVERY = [("bert", "mean"), ("xlm-roberta", "mean"), ("bert", "cls"), ("bert", "last")]


def as_encoder(encoder: TinyEncoder) -> Encoder:
    return cast(Encoder, encoder)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


def joined(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Parts small enough for every core to get some."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    monkeypatch.setattr(flat_lora, "PART_TOKENS", 8)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(("model_type", "pooling"), EVERY)
def test_vectors_are_those_of_one_row_at_a_time(model_type: str, pooling: str, cores: int) -> None:
    encoder = tiny_encoder(model_type, pooling=pooling)
    with torch.no_grad():
        expected = padded_reference(encoder, ROWS)
        trained = flat_embed(as_encoder(encoder), ROWS)
    assert (encoding_stack(as_encoder(encoder)).embed(ROWS, pooling) - expected).abs().max() < 1e-5
    assert (trained - expected).abs().max() < 1e-5
    assert not trained.requires_grad


@pytest.mark.parametrize(("model_type", "pooling"), EVERY)
def test_gradients_are_those_of_one_row_at_a_time(model_type: str, pooling: str, cores: int) -> None:
    encoder = tiny_encoder(model_type, pooling=pooling)
    expected = lora_gradients(encoder, padded_reference(encoder, ROWS))
    found = lora_gradients(encoder, flat_embed(as_encoder(encoder), ROWS))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert relative(found[name], gradient) < 1e-3, name


def test_bfloat16_products_are_close() -> None:
    encoder = tiny_encoder("bert")
    expected = lora_gradients(encoder, padded_reference(encoder, ROWS))
    lora_stack(as_encoder(encoder), bfloat16=True)
    found = lora_gradients(encoder, flat_embed(as_encoder(encoder), ROWS))
    together = joined(found), joined(expected)
    assert torch.cosine_similarity(together[0], together[1], dim=0) > 0.99
    assert relative(*together) > 1e-5  # it is bfloat16


def test_the_same_rows_give_the_same_gradients_bit_for_bit(cores: int) -> None:
    encoder = tiny_encoder("bert")
    first, second = (lora_gradients(encoder, flat_embed(as_encoder(encoder), ROWS)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_layers_below_the_lowest_adapter_are_left_out_of_the_backward() -> None:
    import peft

    plain = tiny_encoder("bert", lora=False)
    config = peft.LoraConfig(r=4, target_modules=["query", "dense"], layers_to_transform=[1, 2])
    peft.inject_adapter_in_model(config, plain.model)
    for name, parameter in plain.model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape)
    expected = lora_gradients(plain, padded_reference(plain, ROWS))
    found = lora_gradients(plain, flat_embed(as_encoder(plain), ROWS))
    assert all(relative(found[name], gradient) < 1e-3 for name, gradient in expected.items())


def test_a_changed_adapter_changes_the_next_vectors() -> None:
    encoder = tiny_encoder("bert")
    before = encoding_stack(as_encoder(encoder)).embed(ROWS, "mean")
    assert encoding_stack(as_encoder(encoder)) is encoding_stack(as_encoder(encoder))
    with torch.no_grad():
        for name, parameter in encoder.model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-1)
        expected = padded_reference(encoder, ROWS)
    after = encoding_stack(as_encoder(encoder)).embed(ROWS, "mean")
    assert (after - expected).abs().max() < 1e-5 < (after - before).abs().max()


def test_the_weights_are_never_prepared_twice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old stack is gone when the next one is built: each is as large as the model's layers."""
    encoder = tiny_encoder("bert")
    modules: list[tuple[Any, str]] = [(flat_encode, "EncodingStack"), (flat_lora, "LoraStack")]
    alive: list[weakref.ref[Any]] = []
    for module, name in modules:
        made = getattr(module, name)

        def build(*args: Any, made: Any = made, **kwargs: Any) -> Any:
            assert all(stack() is None for stack in alive)
            stack = made(*args, **kwargs)
            alive.append(weakref.ref(stack))
            return stack

        monkeypatch.setattr(module, name, build)
    encoding_stack(as_encoder(encoder))
    with torch.no_grad():
        next(value for name, value in encoder.model.named_parameters() if "lora_B" in name).mul_(2)
    encoding_stack(as_encoder(encoder))
    flat_encode.drop_encoding_stack(as_encoder(encoder))
    for bfloat16 in (False, True):
        lora_stack(as_encoder(encoder), bfloat16=bfloat16)
    flat_lora.drop_lora_stack(as_encoder(encoder))
    assert [stack() for stack in alive] == [None] * 4


def test_encode_takes_the_flat_path_and_keeps_the_order(tmp_path: Path, cores: int) -> None:
    encoder = load_encoder(build("minilm", tmp_path), device="cpu")
    assert choose_path(encoder) == "flat"
    rows = encoder.tokenise([*CORPUS, "", *CORPUS[:2]])
    counted: list[int] = []
    found = encoder.encode_rows(rows, batch_tokens=16, progress=counted.append)
    with torch.no_grad():
        expected = padded_embed(encoder, rows).numpy()
    assert np.abs(found - expected).max() < 1e-5
    assert sum(counted) == len(rows)
    assert len(counted) > 1
    assert encoder.encode_rows([]).shape == (0, encoder.dimension)


def test_without_prepared_products_the_vectors_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder("bert")
    expected = encoding_stack(as_encoder(encoder)).embed(ROWS, "mean")
    monkeypatch.setattr(flat_encode, "has_prepared_products", lambda: False)
    found = flat_encode.EncodingStack(encoder.model).embed(ROWS, "mean")
    assert (found - expected).abs().max() < 1e-5


def test_what_it_is_not_written_for_takes_the_padded_path(tmp_path: Path) -> None:
    encoder = load_encoder(build("qodo", tmp_path), device="cpu")
    assert flat_supported(encoder) == "model type 'qwen2' is not written out; known: bert, xlm-roberta"
    assert choose_path(encoder) == "padded"
    lower = load_encoder(build("minilm", tmp_path), device="cpu", precision="bfloat16")
    assert flat_supported(lower) == "the weights are bfloat16; known: float32"


def test_the_tokens_said_to_be_computed_are_those_that_are(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder("bert")
    seen: list[int] = []

    def flattened(rows: list[list[int]], *, spare: int) -> FlatRows:
        flat = flatten(rows, spare=spare)
        seen.append(len(flat.token_ids))
        return flat

    monkeypatch.setattr(flat_lora, "flatten", flattened)
    flat_embed(as_encoder(encoder), ROWS)
    assert computed_tokens(as_encoder(encoder), "flat", [[len(row) for row in ROWS]]) == sum(seen)
    assert sum(seen) > sum(map(len, ROWS))


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_real_gradients_against_float32_on_padded_rows(bfloat16: bool) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    encoder = load_encoder(resolve("minilm").path, device="cpu")
    config = LoraConfig(r=16, lora_alpha=32, target_modules=["query", "key", "value", "dense"])
    inject_adapter_in_model(config, encoder.model)
    encoder.model.eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in encoder.model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.01 * torch.randn(parameter.shape, generator=generator)
    texts = [
        "retry a webhook",
        "def retry(hook):\n    return post(hook)",
        "x = 1\n" * 60,
        "a shortest path",
        "def f(): ...",
    ]
    rows = encoder.tokenise(texts)
    tiny = cast(TinyEncoder, encoder)
    padded = padded_embed(encoder, rows)
    expected = lora_gradients(tiny, padded)
    lora_stack(encoder, bfloat16=bfloat16)
    vectors = embed_tokens(encoder, rows, "flat")
    found = lora_gradients(tiny, vectors)
    cosines = (vectors * padded).sum(dim=1)
    together = joined(found), joined(expected)
    assert cosines.min() > (0.999 if bfloat16 else 0.99999)
    assert torch.cosine_similarity(together[0], together[1], dim=0) > (0.997 if bfloat16 else 0.99999)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 1000))
def test_every_row_is_in_one_part(lengths: list[int], budget: int) -> None:
    for parts in (divide(lengths), flat_batches(lengths, budget)):
        assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
        assert all(parts)
    for batch in flat_batches(lengths, budget):
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= budget


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=12))
def test_pooling_finds_every_row(rows: list[list[int]]) -> None:
    flat = flatten(rows)
    states = torch.stack([flat.token_ids, flat.positions], dim=1).double()  # (tokens, 2)
    means, lasts = pool_rows(states, flat, "mean"), pool_rows(states, flat, "last")
    for row, mean, last in zip(rows, means, lasts, strict=True):
        assert mean.tolist() == pytest.approx([sum(row) / len(row), (len(row) - 1) / 2])
        assert last.tolist() == [row[-1], len(row) - 1]
