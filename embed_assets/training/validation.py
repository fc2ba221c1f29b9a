"""Is it getting better? Mean reciprocal rank@10 of the validation rows, after each pass.

Kept cheap on purpose: a few hundred texts. It picks the best pass; it never judges a candidate, that is the
benchmark's work.
"""

from dataclasses import dataclass

import numpy as np

from embed_assets.encoder.encoder import Encoder
from embed_assets.training.data import TrainingData

MOST_QUERIES = 128
MOST_DISTRACTORS = 256
FEWEST_QUERIES = 20
"""Below it the figure says nothing, and the last pass is kept."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ValidationSet:
    """Queries, a small corpus, and which of its passages answer which query."""

    query_tokens: list[list[int]]
    passage_tokens: list[list[int]]
    relevant: np.ndarray
    """(queries, passages) bool"""


def validation_set(validation: TrainingData | None, training: TrainingData, *, seed: int) -> ValidationSet | None:
    """A fixed sample of the validation rows, and training positives as distractors; None when there are too few."""
    if validation is None:
        return None
    generator = np.random.default_rng([seed, 2])
    queries = np.unique(validation.queries)
    if len(queries) < FEWEST_QUERIES:
        return None
    queries = generator.permutation(queries)[:MOST_QUERIES]
    rows = [row for row in range(len(validation)) if validation.queries[row] in set(queries.tolist())]
    passages = np.unique(validation.positives[rows])
    distractors = generator.permutation(np.unique(training.positives))[:MOST_DISTRACTORS]
    tokens = [validation.passage_tokens[index] for index in passages]
    tokens += [training.passage_tokens[index] for index in distractors]
    place = {query: number for number, query in enumerate(queries.tolist())}
    column = {passage: number for number, passage in enumerate(passages.tolist())}
    relevant = np.zeros((len(queries), len(tokens)), dtype=bool)
    for row in rows:
        relevant[place[validation.queries[row]], column[validation.positives[row]]] = True
    return ValidationSet(
        query_tokens=[validation.query_tokens[index] for index in queries], passage_tokens=tokens, relevant=relevant
    )


def validation_mrr(encoder: Encoder, data: ValidationSet) -> float:
    """Mean reciprocal rank of the first relevant passage, 0 beyond rank 10; ties count against the model."""
    queries = encoder.encode_rows(data.query_tokens)  # (queries, dim)
    passages = encoder.encode_rows(data.passage_tokens)  # (passages, dim)
    scores = queries @ passages.T  # (queries, passages)
    best = np.where(data.relevant, scores, -np.inf).max(axis=1, keepdims=True)  # (queries, 1)
    ranks = 1 + ((scores >= best) & ~data.relevant).sum(axis=1)
    return float(np.where(ranks <= 10, 1.0 / ranks, 0.0).mean())
