"""Hard negatives mined with the base model, for rows whose pairs brought too few."""

import logging
from dataclasses import replace

import numpy as np

from embed_assets.encoder.encoder import Encoder
from embed_assets.retrieval.negatives import mine_hard_negatives
from embed_assets.training.data import TrainingData

logger = logging.getLogger(__name__)


def with_mined_negatives(encoder: Encoder, data: TrainingData, *, count: int) -> TrainingData:
    """`data` with up to `count` mined negatives of each row, in front of those that it brings.

    The corpus is all passages of the data. What answers the row's query, in content or by definition, is left out.
    """
    queries = encoder.encode_rows(data.query_tokens)[data.queries]  # (rows, dim)
    corpus = encoder.encode_rows(data.passage_tokens)  # (passages, dim)
    mined = mine_hard_negatives(queries, corpus, data.positives, answers(data), count=count)  # (rows, count)
    logger.info("mined %d hard negatives from %d passages", int((mined >= 0).sum()), len(corpus))
    return replace(data, negatives=_filled_up(mined, data.negatives))


def answers(data: TrainingData) -> list[list[int]]:
    """Per row, every passage that answers its query: of equal content or definition to a positive of that query."""
    by_content: dict[int, list[int]] = {}
    by_definition: dict[int, list[int]] = {}
    for passage, (content, definition) in enumerate(zip(data.contents, data.definitions, strict=True)):
        by_content.setdefault(int(content), []).append(passage)
        if definition >= 0:
            by_definition.setdefault(int(definition), []).append(passage)
    of_query: dict[int, set[int]] = {}
    for query, positive in zip(data.query_ids, data.positives, strict=True):
        found = of_query.setdefault(int(query), set())
        found.update(by_content[int(data.contents[positive])])
        found.update(by_definition.get(int(data.definitions[positive]), ()))
    return [sorted(of_query[int(query)]) for query in data.query_ids]


def _filled_up(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Columns of `first`, its gaps filled from `second`; as wide as the wider of the two."""
    width = max(first.shape[1], second.shape[1])
    joined = np.full((len(first), width), -1, dtype=np.int64)
    for row, both in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        wanted = list(dict.fromkeys(passage for part in both for passage in part if passage >= 0))[:width]
        joined[row, : len(wanted)] = wanted
    return joined
