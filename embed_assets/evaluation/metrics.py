"""Retrieval metrics from ranks: one number a query, so that two systems can be compared query by query.

`ranks` is, per query, the 1-based ranks of its relevant documents, ascending, as `SliceReport.ranks` holds them.
Definitions are trec_eval's.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Ranks = Sequence[Sequence[int]]

CUT = 10
"""Depth at which the gate judges: what a person reads of a result list."""


def reciprocal_rank(ranks: Ranks, cut: int = CUT) -> Doubles:
    """1 / rank of the first relevant document, 0 below the cut. (queries,)"""
    return np.asarray([1.0 / found[0] if found and found[0] <= cut else 0.0 for found in ranks], dtype=np.float64)


def recall_at(ranks: Ranks, k: int = CUT) -> Doubles:
    """Share of a query's relevant documents among the first `k`. (queries,)"""
    return np.asarray(
        [sum(rank <= k for rank in found) / len(found) if found else 0.0 for found in ranks], dtype=np.float64
    )


def first_ranks(ranks: Ranks) -> npt.NDArray[np.int64]:
    """Rank of the first relevant document. (queries,)"""
    return np.asarray([found[0] for found in ranks], dtype=np.int64)


def mean_reciprocal_rank(ranks: Ranks, cut: int = CUT) -> float:
    """Mean over queries of `reciprocal_rank`; 0 without queries."""
    return float(reciprocal_rank(ranks, cut).mean()) if len(ranks) else 0.0


def mean_recall(ranks: Ranks, k: int = CUT) -> float:
    """Mean over queries of `recall_at`; 0 without queries."""
    return float(recall_at(ranks, k).mean()) if len(ranks) else 0.0
