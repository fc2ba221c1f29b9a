"""Benchmarks made elsewhere, in BEIR's format: measured beside our own, or guarding against forgetting.

They win nothing: a query that resembles what is learnt, or asks for something that does, leaves the set, not the
training. Knows nothing of repositories.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from embed_assets.evaluation.benchmark import BenchmarkError, import_beir
from embed_assets.files import StoreError
from embed_assets.pairs.manifest import PairsError
from embed_assets.pairs.near_duplicates import code_shingles, near_pairs
from embed_assets.pairs.separation import Sketches
from embed_assets.pairs.sources import Proposal
from embed_assets.records import Benchmark

LEAST_QUERIES = 20
"""A set of fewer says nothing."""


def read_external(
    folder: Path, training: Sequence[Proposal], sketches: Sketches, *, name: str = "", least: int = LEAST_QUERIES
) -> Benchmark:
    """The set in `folder` without what resembles `training` (validation included); called `name`, else as the folder.

    Args:
        least: queries that must be left. A guard needs as many as the gate asks for, or every night is refused.

    Raises:
        PairsError: the folder is none in BEIR's format, or fewer than `least` queries are left.
    """
    try:
        found = import_beir(folder, name=name)
    except (BenchmarkError, StoreError) as error:
        raise PairsError(f"external set {folder}: {error}") from error
    answers = {answer.snippet_id: answer for proposal in training for answer in proposal.answers}
    texts = found.corpus["text"].to_list()
    document_ids = found.corpus["document_id"].to_list()
    codes = [*texts, *(text.partition("\n")[2] for text in texts)]  # A first line may be a header, or code.
    learnt = {
        document_ids[place % len(texts)]
        for _, place, _ in near_pairs(
            [sketches.of_code(answer) for answer in answers.values()], [code_shingles(code) for code in codes]
        )
    }
    asked = {
        place
        for _, place, _ in near_pairs(
            [sketches.of_query(proposal.query) for proposal in training],
            [sketches.of_query(text) for text in found.queries["text"].to_list()],
        )
    }
    kept = found.queries.with_row_index("place").filter(
        ~pl.col("place").is_in(sorted(asked))
        & (pl.col("relevant").list.set_intersection(pl.lit(sorted(learnt), dtype=pl.List(pl.String))).list.len() == 0)
    )
    queries = kept.drop("place")
    if queries.height < least:
        raise PairsError(
            f"{name or 'external'} set {folder}: {queries.height} of {found.queries.height} queries are left once what "
            f"resembles the training rows is gone; at least {least} are needed"
        )
    digest = Benchmark.digest_for(found.corpus, queries, cutoff=0)
    return Benchmark(name=found.name, digest=digest, cutoff=0, corpus=found.corpus, queries=queries)
