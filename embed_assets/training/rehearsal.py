"""What keeps a night from forgetting: beside each batch, foreign docs and functions that the base model ranks well.

The loss asks the adapter to rank the functions of such a draw for each of its docs, and the docs for each function, as
the base model does (Li and Hoiem 2016, Learning without Forgetting; the distributions are those of InfoNCE). It pulls
on rankings alone: vectors are free to move together. What it costs and brings is in docs/experiments.md.
"""

import logging
import time
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from embed_assets.encoder.encoder import Encoder
from embed_assets.training.data import Batch, Rehearsed

DRAWN = 64
"""Docs with their functions beside each batch, at most: as many as the batch has rows."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rehearsal:
    """Tokenised rows in the order in which they are drawn, with the base model's vectors."""

    query_tokens: list[list[int]]
    passage_tokens: list[list[int]]
    queries: np.ndarray
    """(rows, dim) float32, the base model's"""
    passages: np.ndarray
    """(rows, dim) float32, the base model's"""
    weight: float
    """Of its loss beside InfoNCE."""
    draw: int
    """Rows beside each batch."""

    def drawn(self, step: int) -> np.ndarray:  # (rows of a draw,)
        """Rows of step `step`: the next ones in turn, from the start again after the last."""
        count = len(self.query_tokens)
        return np.arange(step * self.draw, step * self.draw + min(self.draw, count)) % count

    def tokens(self, step: int) -> int:
        """Tokens that step `step` embeds beside its batch."""
        return sum(len(self.query_tokens[row]) + len(self.passage_tokens[row]) for row in self.drawn(step))

    def beside(self, batch: Batch, step: int) -> Batch:
        """`batch` with the draw of step `step` behind its own texts."""
        rows = self.drawn(step)
        first = len(batch.tokens)
        tokens = [self.query_tokens[row] for row in rows] + [self.passage_tokens[row] for row in rows]
        rehearsed = Rehearsed(
            queries=first + np.arange(len(rows)),
            passages=first + len(rows) + np.arange(len(rows)),
            scores=self.queries[rows] @ self.passages[rows].T,
            weight=self.weight,
        )
        return replace(batch, tokens=[*batch.tokens, *tokens], rehearsed=rehearsed)


def prepare_rehearsal(
    encoder: Encoder, table: pl.DataFrame, *, steps: int, batch_size: int, weight: float, seed: int
) -> Rehearsal | None:
    """The rows of `table` (REHEARSAL_SCHEMA) that `steps` steps draw, embedded by the model as it is: no adapter yet.

    Returns:
        None where there are too few rows to rank.
    """
    from embed_assets.encoder.flat_encode import drop_encoding_stack

    if len(table) < 2:
        return None
    started, draw = time.monotonic(), min(DRAWN, batch_size)
    order = np.random.default_rng([seed, 3]).permutation(len(table))[: steps * draw]
    queries = list(encoder.tokenise(table["query"].gather(order).to_list(), "query"))
    passages = list(encoder.tokenise(table["text"].gather(order).to_list()))
    rehearsal = Rehearsal(
        query_tokens=queries,
        passage_tokens=passages,
        queries=encoder.encode_rows(queries),
        passages=encoder.encode_rows(passages),
        weight=weight,
        draw=draw,
    )
    drop_encoding_stack(encoder)  # an adapter comes next, and needs the memory
    logger.info("%d foreign docs to rehearse, embedded in %.1f s", len(order), time.monotonic() - started)
    return rehearsal
