"""A lexical ranking as teacher: what BM25 finds by words, the dense model learns to find as well.

The teacher is the lexical half of the fused ranking (`retrieval/lexical.py`) over all functions that do not judge. The
label says which function of a batch is meant; the teacher says how likely each of them is by the words that it shares
with the query. A dense model that imitates BM25: Chen et al. 2021, SPAR, arXiv 2110.06918. Labels and teacher that
share the loss: Hinton et al. 2015, arXiv 1503.02531. What it brings is in docs/experiments.md.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embed_assets.retrieval.bm25 import BM25
from embed_assets.retrieval.fusion import zscores
from embed_assets.retrieval.lexical import lexical_index
from embed_assets.training.data import Batch, Taught, TrainingData, batch_passages

TEACHER_TEMPERATURE = 0.5
"""Divides the z-scores in the softmax: a function one deviation above another is seven times as likely."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class LexicalTeacher:
    """An index of the corpus, and where the passages of the training rows stand in it."""

    index: BM25
    places: np.ndarray
    """(passages,) each passage of the data, as a row of the index"""
    share: float
    """Of its cross-entropy in the loss of a row."""

    def beside(self, batch: Batch, data: TrainingData, rows: np.ndarray) -> Batch:
        """`batch`, made of these rows of the data, with what the teacher holds of it.

        A row whose query shares no word with any function of the index is taught by its label alone. Where only
        functions outside the batch have its words, all passages are as likely: its label is smoothed.
        """
        texts = [data.query_texts[query] for query in data.queries[rows]]
        columns = self.places[batch_passages(data, rows)]
        targets = np.zeros((len(rows), len(columns)), dtype=np.float32)
        for start, scores in self.index.score_blocks(texts):  # (block, documents)
            here = slice(start, start + len(scores))
            logits = zscores(scores)[:, columns] / TEACHER_TEMPERATURE
            targets[here] = _softmax(np.where(batch.masked[here], -np.inf, logits))
            silent = start + np.flatnonzero(~scores.any(axis=1))
            targets[silent] = 0.0
            targets[silent, batch.positives[silent]] = 1.0
        return replace(batch, taught=Taught(targets=targets, share=self.share))


def lexical_teacher(data: TrainingData, documents: Sequence[str], *, share: float) -> LexicalTeacher:
    """The teacher of these rows, whose scores are standardised over `documents` and the rows' own passages."""
    started = time.monotonic()
    places = {text: place for place, text in enumerate(dict.fromkeys([*documents, *data.passage_texts]))}
    teacher = LexicalTeacher(
        index=lexical_index(list(places)),
        places=np.array([places[text] for text in data.passage_texts]),
        share=share,
    )
    logger.info("%d functions indexed for the lexical teacher in %.1f s", len(places), time.monotonic() - started)
    return teacher


def _softmax(scores: np.ndarray) -> np.ndarray:  # (rows, columns)
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(likely / likely.sum(axis=1, keepdims=True))
