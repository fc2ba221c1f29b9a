"""Exact nearest neighbours and exact ranks, in blocks: the whole score matrix never exists.

It knows vectors and row numbers, nothing of models, texts or benchmarks. Equal scores are settled the same way
on every machine: `top_k` prefers the lower row number, and a rank counts every document that scores as much as
the relevant one as standing before it. The pessimistic rank is what keeps a collapsed model, whose vectors are all
alike, from looking perfect.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Relevant = Sequence[Sequence[int]]

BLOCK_BYTES = 256 * 2**20
"""Of scores held at once, unless a caller asks for another block."""
TIE = 1e-6
"""Scores this close, relative to their size, are equal: matrix products differ by so much with the block's shape."""


class RetrievalError(ValueError):
    """Vectors, scores or row numbers that no ranking can be made of."""


def top_k(queries: Floats, corpus: Floats, k: int, *, block: int | None = None) -> tuple[Indices, Floats]:
    """The `k` documents with the largest inner product, best first; equal scores by row number.

    Args:
        queries: (queries, dim).
        corpus: (documents, dim).
        k: at most the number of documents is returned.
        block: queries scored at once; from `BLOCK_BYTES` when unset.

    Returns:
        Row numbers and scores, both (queries, min(k, documents)).

    Raises:
        RetrievalError: dimensions differ, a value is not finite, or `k` is below 1.
    """
    if k < 1:
        raise RetrievalError(f"k = {k}; allowed: 1 or more")
    width = min(k, len(corpus))
    rows = np.empty((len(queries), width), dtype=np.int64)
    scores = np.empty((len(queries), width), dtype=np.float32)
    for start, scored in score_blocks(queries, corpus, block=block):
        stop = start + len(scored)
        rows[start:stop], scores[start:stop] = top_k_of(scored, width)
    return rows, scores


def top_k_of(scores: Floats, k: int) -> tuple[Indices, Floats]:
    """The `k` largest entries of each row of `scores` (queries, documents), best first, equal ones by column."""
    import torch

    if k >= scores.shape[1]:
        rows = np.argsort(-scores, axis=1, kind="stable")
        return rows.astype(np.int64), np.take_along_axis(scores, rows, axis=1)
    values, found = torch.topk(torch.from_numpy(np.ascontiguousarray(scores)), k, dim=1)
    rows, best = found.numpy(), values.numpy()  # (queries, k), in no promised order among equals
    worst = best[:, -1:]
    crowded = np.flatnonzero(np.count_nonzero(scores >= worst, axis=1) > k)
    for query in crowded:  # more documents tie for the last places than there are places
        above = np.flatnonzero(scores[query] > worst[query])
        level = np.flatnonzero(scores[query] == worst[query])[: k - len(above)]
        rows[query] = np.concatenate([above, level])
        best[query] = scores[query, rows[query]]
    order = np.lexsort((rows, -best), axis=1)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(best, order, axis=1)


def rank_relevant(
    queries: Floats, corpus: Floats, relevant: Relevant, *, block: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """The exact 1-based ranks of each query's relevant documents, ascending, by inner product.

    Raises:
        RetrievalError: as `top_k`; or a query has no relevant document, or one outside the corpus.
    """
    check_relevant(relevant, len(queries), len(corpus))
    ranks: list[tuple[int, ...]] = []
    for start, scored in score_blocks(queries, corpus, block=block):
        ranks.extend(ranks_in(scored, relevant[start : start + len(scored)]))
    return tuple(ranks)


def ranks_in(
    scores: Floats | npt.NDArray[np.float64], relevant: Relevant, *, tie: float = TIE
) -> list[tuple[int, ...]]:
    """Ranks of the relevant documents in given score rows (queries, documents); `tie` 0 takes scores as they are.

    A document that is not relevant stands before a relevant one when it scores as much or more; relevant documents
    stand before each other by score, so the ranks of one query are distinct.
    """
    ranks = []
    for row, documents in zip(scores, relevant, strict=True):
        own = np.unique(np.asarray(documents, dtype=np.int64))
        best_first = np.sort(row[own])[::-1]
        levels = best_first - tie * np.maximum(1.0, np.abs(best_first))
        rivals = [
            int(np.count_nonzero(row >= level)) - int(np.count_nonzero(row[own] >= level)) for level in levels.tolist()
        ]
        ranks.append(tuple(place + ahead for place, ahead in enumerate(rivals, 1)))
    return ranks


def score_blocks(queries: Floats, corpus: Floats, *, block: int | None = None) -> Iterator[tuple[int, Floats]]:
    """Yields (first query, scores (block, documents)), in order.

    Raises:
        RetrievalError: dimensions differ, or a value is not finite.
    """
    check_vectors(queries, corpus)
    size = block or block_size(len(corpus))
    for start in range(0, len(queries), size):
        yield start, queries[start : start + size] @ corpus.T


def block_size(documents: int) -> int:
    """How many rows of float32 scores fit in a block."""
    return max(1, BLOCK_BYTES // (4 * max(1, documents)))


def check_vectors(queries: Floats, corpus: Floats) -> None:
    for name, vectors in (("queries", queries), ("corpus", corpus)):
        if vectors.ndim != 2:
            raise RetrievalError(f"{name} have shape {vectors.shape}; allowed: (rows, dim)")
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise RetrievalError(f"{name}: the vector of row {row} is not finite; the model that made it is broken")
    if queries.shape[1] != corpus.shape[1]:
        raise RetrievalError(
            f"queries have {queries.shape[1]} dimensions and the corpus {corpus.shape[1]}; "
            "vectors of two models cannot be compared"
        )
    if not len(corpus):
        raise RetrievalError("the corpus is empty; nothing can be found in it")


def check_relevant(relevant: Relevant, queries: int, documents: int) -> None:
    if len(relevant) != queries:
        raise RetrievalError(f"{len(relevant)} lists of relevant documents for {queries} queries")
    for query, rows in enumerate(relevant):
        if not len(rows):
            raise RetrievalError(f"query {query} has no relevant document; it cannot be ranked")
        if min(rows) < 0 or max(rows) >= documents:
            raise RetrievalError(f"query {query} has relevant rows {list(rows)}; allowed: 0 to {documents - 1}")
