"""Is it getting better? Mean reciprocal rank@10 of the validation rows, after each pass.

Kept cheap on purpose: a few hundred texts. It says when a pass has clearly made things worse; it never judges a
candidate, that is the benchmark's work.
"""

import math
from dataclasses import dataclass

import numpy as np

from embed_assets.encoder.encoder import Encoder
from embed_assets.evaluation.significance import PLANNED_DEVIATION
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

    @property
    def tolerance(self) -> float:
        """Passes this close are equal: two standard errors of a difference, which so few queries cannot tell from luck.

        Picking the highest of five such figures kept the first or second pass in 65 of 90 runs; with one standard error
        nine of fifteen runs on small repositories still did, and the last pass was as good (docs/experiments.md).
        """
        return 2 * PLANNED_DEVIATION / math.sqrt(max(1, len(self.query_tokens)))


def validation_set(validation: TrainingData | None, training: TrainingData, *, seed: int) -> ValidationSet | None:
    """A fixed sample of the validation rows; None when there are too few.

    Distractors are what the training rows bring, positives and negatives alike: positives alone are all pulled
    towards queries, and would make every pass look worse than it is.
    """
    if validation is None:
        return None
    generator = np.random.default_rng([seed, 2])
    queries = np.unique(validation.queries)
    if len(queries) < FEWEST_QUERIES:
        return None
    queries = generator.permutation(queries)[:MOST_QUERIES]
    rows = [row for row in range(len(validation)) if validation.queries[row] in set(queries.tolist())]
    passages = np.unique(validation.positives[rows])
    distractors = generator.permutation(_brought(training))[:MOST_DISTRACTORS]
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


def _brought(training: TrainingData) -> np.ndarray:  # (passages,) index into passage_tokens
    negatives = training.negatives[training.negatives >= 0]
    return np.unique(np.concatenate([training.positives, negatives]))


def validation_mrr(encoder: Encoder, data: ValidationSet) -> float:
    """Mean reciprocal rank of the first relevant passage, 0 beyond rank 10; ties count against the model."""
    from embed_assets.encoder.flat_encode import drop_encoding_stack

    queries = encoder.encode_rows(data.query_tokens)  # (queries, dim)
    passages = encoder.encode_rows(data.passage_tokens)  # (passages, dim)
    drop_encoding_stack(encoder)  # the next step changes the weights, and needs the memory
    scores = queries @ passages.T  # (queries, passages)
    best = np.where(data.relevant, scores, -np.inf).max(axis=1, keepdims=True)  # (queries, 1)
    ranks = 1 + ((scores >= best) & ~data.relevant).sum(axis=1)
    return float(np.where(ranks <= 10, 1.0 / ranks, 0.0).mean())
