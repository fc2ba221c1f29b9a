"""Dense and lexical scores of the same documents, fused into one ranking.

Both functions take and return score rows (queries, documents); they know nothing of where the scores came from.
"""

import numpy as np
import numpy.typing as npt

from embed_assets.retrieval.exact import Floats

Doubles = npt.NDArray[np.float64]

BM25_WEIGHT = 0.35
"""Of BM25 in the weighted sum, for every repository and every model.

The middle of the range, 0.3 to 0.4, that did best on ten public repositories, before and after fine-tuning; weights
chosen per repository overfit (docs/gate.md, "Figures beside the verdict").
"""
RRF_K = 60
"""Cormack, Clarke and Buettcher 2009, Reciprocal Rank Fusion."""


def zscore_fusion(dense: Floats, lexical: Floats, *, weight: float = BM25_WEIGHT) -> Floats:
    """`(1 - weight) * z(dense) + weight * z(lexical)`, where z standardises a query's scores over all documents.

    Returns:
        (queries, documents) float32. A row whose scores are all equal says nothing and counts as zeros.
    """
    fused = (1.0 - weight) * zscores(dense) + weight * zscores(lexical)
    return fused.astype(np.float32)


def reciprocal_rank_fusion(dense: Floats, lexical: Floats, *, k: int = RRF_K) -> Doubles:
    """`1 / (k + rank_dense) + 1 / (k + rank_lexical)`; a document that shares no word has no lexical rank and no share.

    Returns:
        (queries, documents) float64, so that ranks far down still differ.
    """
    from_dense = 1.0 / (k + _ranks(dense))
    from_lexical = np.where(lexical > 0, 1.0 / (k + _ranks(lexical)), 0.0)
    return np.asarray(from_dense + from_lexical, dtype=np.float64)


def zscores(scores: Floats) -> Doubles:
    """z-scores of each query's (queries, documents) scores over all documents; zeros where all are equal."""
    mean = scores.mean(axis=1, keepdims=True, dtype=np.float64)
    deviation = scores.std(axis=1, keepdims=True, dtype=np.float64)
    standardised: Doubles = np.divide(scores - mean, deviation, out=np.zeros(scores.shape), where=deviation > 1e-12)
    return standardised


def _ranks(scores: Floats) -> npt.NDArray[np.int64]:
    """Of every document in its row: how many score as much or more. Equal ones share the last of their places."""
    ascending = np.sort(scores, axis=1)
    below: npt.NDArray[np.int64] = np.stack(
        [np.searchsorted(row, values, side="left") for row, values in zip(ascending, scores, strict=True)]
    )
    ranks: npt.NDArray[np.int64] = scores.shape[1] - below
    return ranks
