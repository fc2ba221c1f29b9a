"""Encoding chunk by chunk: every text once, in its order, whatever the chunks and batches are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from embed_assets.encoder import device_encode
from embed_assets.encoder.device_encode import encode_ahead, tokenised_ahead
from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.packing import pack, token_batches
from embed_assets.encoder.transfer import Arrival, to_device
from tests.tiny_models import CORPUS, build


@pytest.mark.parametrize("batch_tokens", [40, 200, 10_000])
def test_chunks_give_the_vectors_of_one_call(
    batch_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_encode, "FIRST_CHUNK", 3)
    monkeypatch.setattr(device_encode, "CHUNK", 5)
    encoder = load_encoder(build("qodo", tmp_path), device="cpu")
    texts = [text[: 7 + 3 * index] for index, text in enumerate(CORPUS * 4)]
    chunks = list(tokenised_ahead(encoder, texts, "passage"))
    assert [len(chunk) for chunk in chunks] == [3, 5, 5, 5, 2]
    vectors = np.full((len(texts), 32), np.nan, dtype=np.float32)
    stored: list[int] = []

    def store(numbers: list[int], arrived: np.ndarray) -> None:
        vectors[numbers] = arrived
        stored.extend(numbers)

    encode_ahead(encoder, chunks, "padded", batch_tokens, store)
    assert sorted(stored) == list(range(len(texts)))
    assert np.abs(vectors - encoder.encode(texts)).max() < 1e-5
    encode_ahead(encoder, [[]], "padded", batch_tokens, store)
    assert len(stored) == len(texts)


def test_batches_are_full() -> None:
    batches = token_batches([5, 100, 3, 60, 40, 2], 100)
    assert batches == [[1], [3, 4], [0, 2, 5]]
    assert token_batches([500], 100) == [[0]]
    assert token_batches([], 100) == []


def test_documents_are_filled_up_for_graphs() -> None:
    packed = pack([[1, 2, 3]] * 5, "cpu", multiple=64, rows_multiple=16)
    assert packed.rows == 5
    other = pack([[1, 2, 3]] * 13, "cpu", multiple=64, rows_multiple=16)
    assert len(packed.boundaries) == len(other.boundaries) == 16 + 1 + 1
    assert int(packed.boundaries[-1]) == 64


def test_copies_there_and_back() -> None:
    array = np.array([[1.5, 2.0], [3.0, 4.0]])
    tensor = to_device(array.T, torch.device("cpu"))
    arrival = Arrival(tensor.requires_grad_())
    assert arrival.wait().tolist() == [[1.5, 3.0], [2.0, 4.0]]
    assert not arrival.wait().requires_grad
    assert arrival.seconds_since(arrival) is None
