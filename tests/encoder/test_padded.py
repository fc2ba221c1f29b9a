"""Batches of like length: every row once, within the budget; the path is the one that was asked for."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embed_assets.encoder.layout import ModelError
from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.padded import length_batches
from embed_assets.encoder.paths import choose_path, embed_tokens
from embed_assets.encoder.pooling import pool_padded
from tests.tiny_models import CORPUS, build


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000))
def test_every_row_is_in_one_batch_and_batches_keep_the_budget(lengths: list[int], budget: int) -> None:
    batches = length_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert lengths[batch[0]] == longest


def test_lengths_are_alike_within_a_batch() -> None:
    lengths = [10, 100, 11, 99, 12, 98]
    assert [sorted(lengths[index] for index in batch) for batch in length_batches(lengths, 300)] == [
        [98, 99, 100],
        [10, 11, 12],
    ]


def test_pooling_by_hand() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    lengths = torch.tensor([2])
    assert pool_padded(states, lengths, "mean").tolist() == [[2.0, 3.0]]
    assert pool_padded(states, lengths, "last").tolist() == [[3.0, 4.0]]
    assert pool_padded(states, lengths, "cls").tolist() == [[1.0, 2.0]]


def test_vectors_have_gradients_when_they_are_enabled(tmp_path_factory: pytest.TempPathFactory) -> None:
    encoder = load_encoder(build("qodo", tmp_path_factory.mktemp("model")), device="cpu")
    rows = encoder.tokenise(CORPUS)
    assert embed_tokens(encoder, rows, "padded").requires_grad
    with torch.no_grad():
        assert not embed_tokens(encoder, rows, "padded").requires_grad


def test_the_path_that_was_asked_for_or_a_reason(tmp_path_factory: pytest.TempPathFactory) -> None:
    encoder = load_encoder(build("minilm", tmp_path_factory.mktemp("model")), device="cpu")
    assert choose_path(encoder) == choose_path(encoder, "flat") == "flat"
    assert choose_path(encoder, "padded") == "padded"
    with pytest.raises(ModelError, match="path 'packed' does not work here"):
        choose_path(encoder, "packed")
    with pytest.raises(ModelError, match="there is no path 'quick'; allowed: auto, padded, flat, packed, fused"):
        choose_path(encoder, "quick")
