"""The loss against closed forms, and the masks that keep right answers from being negatives."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embed_assets.training.loss import info_nce, masked_columns, similar_passages


def no_mask(rows: int, columns: int) -> torch.Tensor:
    return torch.zeros(rows, columns, dtype=torch.bool)


@pytest.mark.parametrize("columns", [2, 8, 33])
def test_zero_vectors_lose_log_of_the_columns(columns: int) -> None:
    zero = torch.zeros(columns, 4)
    loss = info_nce(
        zero, zero, torch.arange(columns), no_mask(columns, columns), temperature=0.05, weights=torch.ones(columns)
    )
    assert loss.item() == pytest.approx(math.log(columns), rel=1e-6)


def test_orthogonal_pairs_in_closed_form() -> None:
    """Each query equals its positive and is orthogonal to the rest: log(1 + (n - 1) exp(-1 / t))."""
    unit = torch.eye(5)
    loss = info_nce(unit, unit, torch.arange(5), no_mask(5, 5), temperature=0.2, weights=torch.ones(5))
    assert loss.item() == pytest.approx(math.log1p(4 * math.exp(-5.0)), rel=1e-4)


def test_a_masked_column_is_not_there() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, passages = (torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=-1) for n in (3, 5))
    masked = no_mask(3, 5)
    masked[:, 4] = True
    weights = torch.ones(3)
    with_mask = info_nce(queries, passages, torch.arange(3), masked, temperature=0.1, weights=weights)
    without = info_nce(queries, passages[:4], torch.arange(3), no_mask(3, 4), temperature=0.1, weights=weights)
    assert with_mask.item() == pytest.approx(without.item(), rel=1e-6)


def test_a_teacher_has_its_share_beside_the_label() -> None:
    """With the label as its distribution it changes nothing; with the model's own the loss is that one's entropy."""
    generator = torch.Generator().manual_seed(0)
    queries, passages = (torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=-1) for n in (3, 5))
    masked = no_mask(3, 5)
    masked[0, 4] = True

    def loss(targets: torch.Tensor | None, share: float) -> float:
        return info_nce(
            queries,
            passages,
            torch.arange(3),
            masked,
            temperature=0.1,
            weights=torch.ones(3),
            targets=targets,
            share=share,
        ).item()

    labels = torch.eye(3, 5)
    assert loss(labels, 0.4) == pytest.approx(loss(None, 0.0), rel=1e-6)
    own = torch.softmax((queries @ passages.T / 0.1).masked_fill(masked, float("-inf")), dim=1)
    entropy = -torch.xlogy(own, own).sum(dim=1).mean().item()
    assert loss(own, 1.0) == pytest.approx(entropy, rel=1e-5)
    other = own.roll(1, dims=0).masked_fill(masked, 0.0)
    assert loss(other, 0.5) == pytest.approx((loss(None, 0.0) + loss(other, 1.0)) / 2, rel=1e-5)


def test_a_row_weighs_as_much_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(3, 8, generator=generator), dim=-1)
    others = torch.nn.functional.normalize(torch.randn(3, 8, generator=generator), dim=-1)

    def loss(*weights: float) -> float:
        return info_nce(
            vectors, others, torch.arange(3), no_mask(3, 3), temperature=0.1, weights=torch.tensor(weights)
        ).item()

    single = [loss(1, 0, 0), loss(0, 1, 0), loss(0, 0, 1)]
    assert loss(1, 1, 1) == pytest.approx(sum(single) / 3, rel=1e-5)
    assert loss(3, 1, 0) == pytest.approx((3 * single[0] + single[1]) / 4, rel=1e-5)


def test_what_answers_a_query_is_no_negative_of_it() -> None:
    """Columns: 0 and 1 are positives of one query, 2 has 0's content, 3 is 1's definition, 4 is something else."""
    masked = masked_columns(
        positives=np.array([0, 1, 4]),
        answers=np.array([[True, True, False, False, False]] * 2 + [[False] * 4 + [True]]),
        contents=np.array([0, 1, 0, 3, 4]),
        definitions=np.array([10, 11, -1, 11, -1]),
        similar=np.eye(5, dtype=bool),
        columns=5,
    )
    assert masked.tolist() == [
        [False, True, True, True, False],
        [True, False, True, True, False],
        [False, False, False, False, False],
    ]


def test_an_answer_that_is_no_column_masks_what_equals_it() -> None:
    """One row whose positive is column 0; its other answer, outside, equals 1 in content, 2 by definition, 3 nearly."""
    similar = np.eye(6, dtype=bool)
    similar[3, 5] = similar[5, 3] = True
    masked = masked_columns(
        positives=np.array([0]),
        answers=np.array([[True, False, False, False, False, True]]),
        contents=np.array([0, 5, 2, 3, 4, 5]),
        definitions=np.array([-1, -1, 9, -1, -1, 9]),
        similar=similar,
        columns=5,
    )
    assert masked.tolist() == [[False, True, True, True, False]]


def test_unknown_definitions_are_not_equal_to_each_other() -> None:
    masked = masked_columns(
        np.array([0, 1]), np.eye(2, dtype=bool), np.array([0, 1]), np.array([-1, -1]), np.eye(2, dtype=bool), 2
    )
    assert not masked.any()


def test_nearly_equal_passages_are_found_by_their_tokens() -> None:
    tokens = [np.arange(20), np.arange(1, 21), np.arange(10, 30)]  # overlaps: 19/21, 10/30
    assert similar_passages(tokens, 0.9).tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert not similar_passages(tokens, 0.91)[0, 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=12))
def test_the_own_positive_is_never_masked(rows: list[tuple[int, int]]) -> None:
    positives = np.array([positive for _, positive in rows])
    answers = np.array([[(query, passage) in rows for passage in range(5)] for query, _ in rows])
    ids = np.array([0, 0, 1, 2, 3])
    masked = masked_columns(positives, answers, ids, ids, np.ones((5, 5), dtype=bool), 5)
    assert not masked[np.arange(len(rows)), positives].any()
