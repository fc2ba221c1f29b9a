"""Metrics against closed forms and trec_eval's own code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed_assets.evaluation.metrics import first_ranks, recall_at, reciprocal_rank

RANKS = st.lists(st.sets(st.integers(1, 40), min_size=1, max_size=4).map(sorted), min_size=1, max_size=8)


def test_closed_forms() -> None:
    ranks = [(1,), (2, 3), (10, 11), (11,)]
    np.testing.assert_allclose(reciprocal_rank(ranks), [1, 1 / 2, 1 / 10, 0])
    np.testing.assert_allclose(recall_at(ranks, 10), [1, 1, 1 / 2, 0])
    np.testing.assert_allclose(recall_at(ranks, 1), [1, 0, 0, 0])
    assert first_ranks(ranks).tolist() == [1, 2, 10, 11]


@given(RANKS, st.sampled_from([1, 3, 5, 10, 20]))
def test_recall_agrees_with_its_definition(ranks: list[list[int]], k: int) -> None:
    """Oracle: sets of document ids, as the definition reads."""
    expected = [len(set(found) & set(range(1, k + 1))) / len(found) for found in ranks]
    np.testing.assert_allclose(recall_at(ranks, k), expected)


@given(RANKS)
def test_agrees_with_trec_eval(ranks: list[list[int]]) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="needs pytrec_eval-terrier")
    run = {str(query): {str(rank): float(-rank) for rank in range(1, 11)} for query in range(len(ranks))}
    truth = {str(query): {str(rank): 1 for rank in found} for query, found in enumerate(ranks)}
    judged = pytrec_eval.RelevanceEvaluator(truth, {"recip_rank", "recall.10"}).evaluate(run)
    order = [judged[str(query)] for query in range(len(ranks))]
    np.testing.assert_allclose(reciprocal_rank(ranks), [row["recip_rank"] for row in order])
    np.testing.assert_allclose(recall_at(ranks, 10), [row["recall_10"] for row in order])
