"""Mined negatives against a slow, obvious implementation."""

import numpy as np
import pytest

from embed_assets.retrieval.bm25 import BM25
from embed_assets.retrieval.exact import RetrievalError
from embed_assets.retrieval.negatives import NO_DOCUMENT, mine_hard_negatives, mine_lexical_negatives


def obvious(scores: np.ndarray, positive: int, excluded: list[int], count: int, cap: float) -> list[int]:
    limit = min(cap * scores[positive], scores[positive])
    order = np.argsort(-scores, kind="stable")
    found = [int(row) for row in order if scores[row] <= limit and row != positive and row not in excluded]
    return (found + [NO_DOCUMENT] * count)[:count]


@pytest.mark.parametrize("block", [1, 5, None])
def test_agrees_with_the_obvious_implementation(block: int | None) -> None:
    random = np.random.default_rng(0)
    queries = random.standard_normal((23, 6)).astype(np.float32)
    corpus = random.standard_normal((50, 6)).astype(np.float32)
    positives = random.integers(0, 50, 23)
    excluded = [random.integers(0, 50, 4).tolist() for _ in range(23)]
    mined = mine_hard_negatives(queries, corpus, positives, excluded, count=7, cap=0.8, block=block)
    scores = queries @ corpus.T
    expected = [obvious(scores[row], int(positives[row]), excluded[row], 7, 0.8) for row in range(23)]
    np.testing.assert_array_equal(mined, expected)


def test_documents_near_the_positive_are_left_out() -> None:
    query = np.asarray([[1.0, 0.0]], dtype=np.float32)
    corpus = np.asarray([[1.0, 0.0], [0.97, 0.0], [0.94, 0.0], [0.1, 0.0]], dtype=np.float32)
    assert mine_hard_negatives(query, corpus, [0], [[]], count=3).tolist() == [[2, 3, NO_DOCUMENT]]
    assert mine_hard_negatives(query, corpus, [0], [[2]], count=1).tolist() == [[3]]


TEXTS = ["retry failed webhook", "retry failed webhook now", "retry the parcel", "parse a header", "webhook"]


def test_lexical_negatives_share_words_and_stay_below_the_cap() -> None:
    index, queries = BM25(TEXTS), ["retry failed webhook", "retry failed webhook", "archive"]
    mined = mine_lexical_negatives(index, queries, [0, 0, 3], [[], [2], []], count=3, cap=0.9)
    scores = index.scores(queries)
    for query, (positive, excluded) in enumerate([(0, set()), (0, {2}), (3, set())]):
        allowed = [
            row
            for row in np.argsort(-scores[query], kind="stable").tolist()
            if 0 < scores[query, row] <= 0.9 * scores[query, positive] and row not in {positive, *excluded}
        ]
        assert mined[query].tolist() == (allowed + [NO_DOCUMENT] * 3)[:3]
    assert len(set(mined[0].tolist()) - {NO_DOCUMENT}) >= 2 and set(mined[2].tolist()) == {NO_DOCUMENT}


def test_what_is_never_mined_is_excluded_for_every_query() -> None:
    index, queries, positives = BM25(TEXTS), ["retry failed webhook", "webhook"], [0, 4]
    each = mine_lexical_negatives(index, queries, positives, [[2, 4], [2, 4]], count=3, cap=1)
    np.testing.assert_array_equal(
        mine_lexical_negatives(index, queries, positives, [[4], []], count=3, cap=1, never=[2, 4]), each
    )
    assert {1} < set(each.ravel().tolist()) and not {2, 4} & set(each.ravel().tolist())


def test_lengths_and_rows_are_checked() -> None:
    vectors = np.ones((2, 3), dtype=np.float32)
    with pytest.raises(RetrievalError, match="2 queries, 1 positives"):
        mine_hard_negatives(vectors, vectors, [0], [[], []], count=1)
    with pytest.raises(RetrievalError, match="outside the corpus"):
        mine_hard_negatives(vectors, vectors, [0, 2], [[], []], count=1)
    with pytest.raises(RetrievalError, match="count = 0"):
        mine_hard_negatives(vectors, vectors, [0, 1], [[], []], count=0)
