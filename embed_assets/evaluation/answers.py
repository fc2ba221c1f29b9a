"""What one query finds: the nearest functions of a frozen corpus, by vectors that an evaluation left on disk.

It embeds nothing. The query's vector comes from whoever answers with the model; vectors of another space are refused by
there being none.
"""

from dataclasses import dataclass
from pathlib import Path

from embed_assets.evaluation.vectors import Floats, stored_vectors
from embed_assets.records import Benchmark
from embed_assets.retrieval.exact import top_k


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One function found, the best first."""

    path: str
    name: str
    score: float
    """Cosine with the query."""


def nearest(
    query: Floats,  # (dim,) unit vector
    benchmark: Benchmark,
    *,
    space_id: str,
    root: Path,
    k: int = 3,
) -> list[Answer]:
    """The `k` functions of the benchmark's corpus nearest to `query`.

    Args:
        space_id: of the model that embedded the query.
        root: the folder of all spaces.

    Raises:
        EvaluationError: the corpus was never embedded in this space.
    """
    corpus = stored_vectors(
        benchmark.corpus["text"].to_list(),
        kind="passage",
        name="benchmark-passages",
        space_id=space_id,
        root=root,
        parts=benchmark.corpus["parts"].to_list(),
    )
    rows, scores = top_k(query[None, :], corpus, k)
    return [
        Answer(path=benchmark.corpus["path"][row], name=benchmark.corpus["name"][row], score=score)
        for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True)
    ]
