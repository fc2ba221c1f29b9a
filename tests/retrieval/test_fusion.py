"""Fusion against closed forms and SciPy's z-scores."""

import numpy as np
from scipy.stats import zscore

from embed_assets.retrieval.fusion import reciprocal_rank_fusion, zscore_fusion

DENSE = np.asarray([[0.9, 0.1, 0.5], [0.2, 0.2, 0.2]], dtype=np.float32)
LEXICAL = np.asarray([[0.0, 7.0, 1.0], [3.0, 0.0, 0.0]], dtype=np.float32)


def test_zscores_agree_with_scipy() -> None:
    expected = 0.7 * zscore(DENSE[:1].astype(np.float64), axis=1) + 0.3 * zscore(LEXICAL[:1].astype(np.float64), axis=1)
    np.testing.assert_allclose(zscore_fusion(DENSE[:1], LEXICAL[:1], weight=0.3), expected, rtol=1e-5)


def test_scores_that_say_nothing_leave_the_decision_to_the_other_side() -> None:
    assert zscore_fusion(DENSE, LEXICAL)[1].argmax() == 0
    assert np.isfinite(zscore_fusion(DENSE, np.zeros_like(LEXICAL))).all()


def test_weights_at_the_ends_are_one_side_alone() -> None:
    assert zscore_fusion(DENSE, LEXICAL, weight=0.0)[0].argmax() == 0
    assert zscore_fusion(DENSE, LEXICAL, weight=1.0)[0].argmax() == 1


def test_reciprocal_ranks_are_added_and_unmatched_documents_get_none() -> None:
    fused = reciprocal_rank_fusion(DENSE[:1], LEXICAL[:1])
    np.testing.assert_allclose(fused[0], [1 / 61, 1 / 63 + 1 / 61, 1 / 62 + 1 / 62])


def test_documents_that_tie_share_the_last_of_their_places() -> None:
    fused = reciprocal_rank_fusion(DENSE[1:], LEXICAL[1:])
    np.testing.assert_allclose(fused[0], [1 / 63 + 1 / 61, 1 / 63, 1 / 63])
