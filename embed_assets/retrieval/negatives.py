"""Hard negatives: documents that a model, or BM25, puts near a query and that do not answer it.

The cap relative to the positive's score keeps out documents that probably do answer it (Moreira et al. 2024,
NV-Retriever, arXiv 2407.15831: TopK-PercPos at 95%). It knows scores and row numbers only.
"""

from collections.abc import Sequence

import numpy as np

from embed_assets.retrieval.bm25 import BM25
from embed_assets.retrieval.exact import Floats, Indices, RetrievalError, score_blocks, top_k_of

NO_DOCUMENT = -1
CAP = 0.95
"""Share of the positive's score above which a document is taken for another answer."""


def mine_hard_negatives(
    query_vectors: Floats,
    corpus_vectors: Floats,
    positive_index: Sequence[int] | Indices,
    excluded: Sequence[Sequence[int]],
    *,
    count: int,
    cap: float = CAP,
    block: int | None = None,
) -> Indices:
    """The `count` best documents below the cap of each query, exactly, best first.

    Args:
        query_vectors: (queries, dim), unit rows.
        corpus_vectors: (documents, dim), unit rows.
        positive_index: (queries,) row of each query's positive.
        excluded: per query, rows that must not be mined: its other positives, duplicates, test definitions.
        count: negatives wanted of each query.
        cap: a document scoring above this share of the positive's score is left out.
        block: queries scored at once.

    Returns:
        (queries, count) rows of the corpus; `NO_DOCUMENT` (-1) fills the end where there are too few.

    Raises:
        RetrievalError: lengths or dimensions differ, a row lies outside the corpus, or a value is not finite.
    """
    positives = _checked(len(query_vectors), len(corpus_vectors), positive_index, excluded, count, cap)
    documents = len(corpus_vectors)
    mined = np.full((len(positives), count), NO_DOCUMENT, dtype=np.int64)
    for start, scores in score_blocks(query_vectors, corpus_vectors, block=block):
        here = slice(start, start + len(scores))
        positive = np.take_along_axis(scores, positives[here, None], axis=1)  # (block, 1)
        # Below zero a share of the score lies above it: there the positive itself is the cap.
        scores[scores > np.minimum(cap * positive, positive)] = -np.inf
        np.put_along_axis(scores, positives[here, None], -np.inf, axis=1)
        for row, rows in enumerate(excluded[here]):
            scores[row, list(rows)] = -np.inf
        found, best = top_k_of(scores, min(count, documents))
        mined[here, : found.shape[1]] = np.where(np.isneginf(best), NO_DOCUMENT, found)
    return mined


def mine_lexical_negatives(
    index: BM25,
    queries: Sequence[str],
    positive_index: Sequence[int] | Indices,
    excluded: Sequence[Sequence[int]],
    *,
    count: int,
    cap: float = CAP,
    never: Sequence[int] = (),
) -> Indices:
    """The same by BM25: documents that share words with the query, best first, equal ones by row number.

    A positive that shares no word with its query sets no cap: nothing is mined for it. `never` are rows excluded for
    every query, said once. Imports no torch.
    """
    positives = _checked(len(queries), index.documents, positive_index, excluded, count, cap)
    minable = np.ones(index.documents, dtype=np.bool_)
    minable[list(never)] = False
    mined = np.full((len(positives), count), NO_DOCUMENT, dtype=np.int64)
    for start, scores in index.score_blocks(queries):
        for query, row in enumerate(scores, start):
            allowed = minable & (row > 0) & (row <= cap * row[positives[query]])
            allowed[[positives[query], *excluded[query]]] = False
            found = np.flatnonzero(allowed)
            best = found[np.argsort(-row[found], kind="stable")][:count]
            mined[query, : len(best)] = best
    return mined


def _checked(
    queries: int,
    documents: int,
    positive_index: Sequence[int] | Indices,
    excluded: Sequence[Sequence[int]],
    count: int,
    cap: float,
) -> Indices:
    positives = np.asarray(positive_index, dtype=np.int64)
    if not (len(positives) == len(excluded) == queries):
        raise RetrievalError(
            f"{queries} queries, {len(positives)} positives, {len(excluded)} lists of excluded rows; "
            "allowed: equally many"
        )
    if count < 1 or not 0 < cap <= 1:
        raise RetrievalError(f"count = {count}, cap = {cap}; allowed: count of 1 or more, cap above 0 and at most 1")
    if len(positives) and (positives.min() < 0 or positives.max() >= documents):
        raise RetrievalError(f"a positive lies outside the corpus; allowed rows: 0 to {documents - 1}")
    return positives
