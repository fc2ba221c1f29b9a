"""Top-k and ranks against the whole score matrix, and ties against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embed_assets.retrieval.exact import Floats, RetrievalError, rank_relevant, ranks_in, top_k, top_k_of


def unit(rows: int, dim: int, seed: int) -> Floats:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.parametrize("block", [1, 7, 64, None])
def test_top_k_agrees_with_a_full_sort_whatever_the_block(block: int | None) -> None:
    queries, corpus = unit(30, 16, 0), unit(200, 16, 1)
    rows, scores = top_k(queries, corpus, 10, block=block)
    full = queries @ corpus.T
    np.testing.assert_array_equal(rows, np.argsort(-full, axis=1, kind="stable")[:, :10])
    np.testing.assert_allclose(scores, np.take_along_axis(full, rows, axis=1), atol=1e-6)


@settings(max_examples=60)
@given(st.integers(1, 9), st.lists(st.lists(st.integers(0, 3), min_size=8, max_size=8), min_size=1, max_size=5))
def test_equal_scores_are_ordered_by_row_number(k: int, levels: list[list[int]]) -> None:
    scores = np.asarray(levels, dtype=np.float32)
    rows, _ = top_k_of(scores, min(k, 8))
    np.testing.assert_array_equal(rows, np.argsort(-scores, axis=1, kind="stable")[:, : min(k, 8)])


def test_top_k_returns_every_document_of_a_small_corpus() -> None:
    rows, scores = top_k(unit(2, 4, 0), unit(3, 4, 1), 10)
    assert rows.shape == scores.shape == (2, 3)


def test_ranks_agree_with_a_full_sort() -> None:
    queries, corpus = unit(40, 16, 2), unit(300, 16, 3)
    relevant = [[query, query + 100, query + 7] for query in range(40)]
    order = np.argsort(np.argsort(-(queries @ corpus.T), axis=1), axis=1) + 1
    expected = tuple(tuple(sorted(order[query, rows])) for query, rows in enumerate(relevant))
    assert rank_relevant(queries, corpus, relevant, block=11) == expected


def test_a_collapsed_model_ranks_last_not_first() -> None:
    same = np.full((5, 4), 0.5, dtype=np.float32)
    assert rank_relevant(same[:2], same, [[0], [3, 4]]) == ((5,), (4, 5))


def test_documents_that_differ_by_rounding_only_are_tied() -> None:
    scores = np.asarray([[0.5, 0.5 + 1e-8, 0.4, 0.5 - 1e-7]], dtype=np.float32)
    assert ranks_in(scores, [[0]]) == [(3,)]
    assert ranks_in(scores.astype(np.float64), [[0]], tie=0.0)[0][0] <= 3


def test_relevant_documents_named_twice_count_once() -> None:
    assert ranks_in(np.asarray([[3, 2, 1]], dtype=np.float32), [[1, 1, 0]]) == [(1, 2)]


@pytest.mark.parametrize(
    ("queries", "corpus", "message"),
    [
        (np.ones((1, 3)), np.ones((2, 4)), "queries have 3 dimensions and the corpus 4"),
        (np.asarray([[np.nan, 1]]), np.ones((2, 2)), "queries: the vector of row 0 is not finite"),
        (np.ones((1, 2)), np.asarray([[1, 1], [np.inf, 1]]), "corpus: the vector of row 1 is not finite"),
        (np.ones((1, 2)), np.ones((0, 2)), "the corpus is empty"),
        (np.ones(3), np.ones((2, 3)), "queries have shape"),
    ],
)
def test_vectors_that_cannot_be_ranked_are_refused(queries: np.ndarray, corpus: np.ndarray, message: str) -> None:
    with pytest.raises(RetrievalError, match=message):
        top_k(queries.astype(np.float32), corpus.astype(np.float32), 1)


@pytest.mark.parametrize("relevant", [[], [[]], [[5]], [[-1]]])
def test_relevant_rows_are_checked(relevant: list[list[int]]) -> None:
    with pytest.raises(RetrievalError):
        rank_relevant(unit(1, 4, 0), unit(5, 4, 1), relevant)


def test_memory_stays_within_a_block() -> None:
    """20,000 x 20,000 scores are 1.6 GB; the search may not hold them all."""
    import tracemalloc

    queries, corpus = unit(2_000, 8, 0), unit(20_000, 8, 1)
    tracemalloc.start()
    top_k(queries, corpus, 5, block=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 200 * 20_000 * 3  # far below the 160 MB of the whole matrix
