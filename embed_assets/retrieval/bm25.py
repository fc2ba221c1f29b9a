"""BM25 over code: the lexical baseline beside every dense figure, and one half of the hybrid.

Scoring is bm25s' (Lù 2024, arXiv 2407.03618; Lucene's variant, k1 = 1.5, b = 0.75); the tokeniser is ours, because
code is written in identifiers and asked for in words.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from embed_assets.retrieval.exact import Floats, block_size
from embed_assets.unspaced import bigrams

_WORD = re.compile(r"\w+")
_BOUNDARY = re.compile(r"_+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)")
"""Between the parts of an identifier: snake_case, camelCase, HTTPHeader, utf8."""


def tokenize(text: str) -> list[str]:
    """Words in lower case, in order; an identifier counts whole and in its parts, Chinese by pairs of characters.

    >>> tokenize("parseHTTPHeader(max_bytes)")
    ['parsehttpheader', 'parse', 'http', 'header', 'max_bytes', 'max', 'bytes']
    """
    tokens: list[str] = []
    for word in (part for found in _WORD.findall(text) for part in bigrams(found)):
        tokens.append(word.lower())
        parts = [part for part in _BOUNDARY.split(word) if part]
        if parts != [word]:
            tokens.extend(part.lower() for part in parts)
    return tokens


class BM25:
    """An index of one corpus, in memory.

    Args:
        texts: the documents. A corpus without a single word scores zero throughout.
        k1: how fast a word that comes again stops counting.
        b: how much long documents are penalised, 0 to 1.
        document_terms: what of a document is counted.
        query_terms: what of a query is looked up.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        k1: float = 1.5,
        b: float = 0.75,
        document_terms: Callable[[str], list[str]] = tokenize,
        query_terms: Callable[[str], list[str]] = tokenize,
    ) -> None:
        # bm25s warms JAX up where that is installed, and JAX takes three quarters of a GPU's memory for itself.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import asks for DEBUG
        self.documents = len(texts)
        self._query_terms = query_terms
        tokens = [document_terms(text) for text in texts]
        self._index = bm25s.BM25(method="lucene", k1=k1, b=b) if any(tokens) else None
        if self._index is not None:
            self._index.index(tokens, show_progress=False)

    def scores(self, queries: Sequence[str]) -> Floats:
        """(queries, documents) float32; zero where no word is shared."""
        scores = np.zeros((len(queries), self.documents), dtype=np.float32)
        if self._index is None:
            return scores
        for row, query in enumerate(queries):
            known = self._index.get_tokens_ids(self._query_terms(query))
            if known:
                scores[row] = self._index.get_scores_from_ids(known)
        return scores

    def score_blocks(self, queries: Sequence[str], *, block: int | None = None) -> Iterator[tuple[int, Floats]]:
        """Yields (first query, scores (block, documents)), in order."""
        size = block or block_size(self.documents)
        for start in range(0, len(queries), size):
            yield start, self.scores(queries[start : start + size])
