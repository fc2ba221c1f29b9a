"""What a night's pairs are: counts, reasons of dropping, digests, examples, and what the test side can prove.

Written last, beside the tables it describes. Knows nothing of how they were made.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import sqrt
from typing import Any

import polars as pl

from embed_assets.files import StoreError, read_json
from embed_assets.records import Benchmark, digest_of_json
from embed_assets.store import Store

STANDARD_DEVIATION_OF_GAIN = 0.20
"""Of the paired difference in reciprocal rank between a fine-tuned model and its base, per query; measured."""
DETECTABLE_Z = 1.645 + 0.842
"""One-sided test at 5%, found in 80% of the nights on which it is there."""
LEARNT_FILE = "learnt.txt"
SMALL_BENCHMARK = 150
"""Fewer queries of a source deserve a warning beside every figure."""


class PairsError(RuntimeError):
    """There is nothing to learn from, or a file of queries cannot be read; the message says what to do."""


def provable_gain(queries: int) -> float:
    """The smallest gain of mean reciprocal rank (a share) that so many queries can prove."""
    return DETECTABLE_Z * STANDARD_DEVIATION_OF_GAIN / sqrt(queries) if queries else 1.0


@dataclass(frozen=True, kw_only=True)
class PairsManifest:
    """`pairs.json`."""

    cutoff: int
    """T, seconds since 1970; 0 when sides go by file."""
    rows: int
    """Of all splits."""
    by_split: Mapping[str, int]
    by_source: Mapping[str, int]
    """Of the train and validation rows."""
    by_language: Mapping[str, int]
    """Of the train and validation rows."""
    by_repository: Mapping[str, int]
    """Of the train and validation rows."""
    by_source_and_language: Mapping[str, Mapping[str, int]]
    """Source -> language -> rows, of the train and validation rows."""
    by_source_and_split: Mapping[str, Mapping[str, int]]
    """Source -> split -> rows."""
    test_queries: Mapping[str, int]
    """Source -> queries of the benchmark."""
    corpus: int
    """Documents of the benchmark."""
    duplicates: int
    """Functions of the trees that the corpus leaves out as copies."""
    guard_queries: int
    guard_corpus: int
    dropped: Mapping[str, int]
    """Reason -> how many."""
    failed: Mapping[str, str]
    """Repository -> why nothing could be read from it."""
    notes: tuple[str, ...]
    """What a reader of the figures should know, in sentences."""
    examples: tuple[Mapping[str, str], ...]
    """Some training rows: source, repository, query, positive."""
    pairs_digest: str
    """Of the train and validation rows: the same digest is the same training."""
    benchmark_digest: str
    guard_digest: str
    inputs_digest: str
    """Of everything the night was made from: the same inputs are not worked through again."""
    provable_gain: float
    """Smallest gain of mean reciprocal rank (a share) that the largest source of held-out queries can prove."""
    seconds: float
    seconds_by_step: Mapping[str, float] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    """File beside the table of pairs that training or a check reads -> its SHA-256."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "PairsManifest":
        """
        Raises:
            StoreError: the document is no manifest of this version.
        """
        try:
            values = dict(document)
            values["notes"] = tuple(values["notes"])
            values["examples"] = tuple(values["examples"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise StoreError(f"not a pairs manifest: {error!r}; build the pairs again") from error


def read_manifest(store: Store) -> PairsManifest:
    """
    Raises:
        StoreError: no pairs were built yet, or the manifest is damaged.
    """
    return PairsManifest.from_json(read_json(store.pairs_manifest))


def learnt_queries(store: Store) -> set[str]:
    """Digests of all queries that ever stood on the training side, on whatever night."""
    path = store.pairs_dir / LEARNT_FILE
    return set(path.read_text(encoding="ascii").split()) if path.exists() else set()


def digest_of_pairs(pairs: pl.DataFrame) -> str:
    """Digest of what is learnt: train and validation rows with their negatives, split and weight, in any order."""
    rows = pairs.filter(pl.col("split") != "test").select("pair_id", "split", "hard_negatives", "weight")
    return digest_of_json(sorted(rows.rows()))


def notes_on(benchmark: Benchmark) -> tuple[str, ...]:
    """What the test side can prove, for each source of queries that is small."""
    notes = []
    for source, queries in sorted(counts(benchmark.queries, "source").items()):
        if queries < SMALL_BENCHMARK:
            gain = 100 * provable_gain(queries)
            notes.append(
                f"only {queries} {source} queries are held out: by themselves they cannot tell a gain below {gain:.1f} "
                f"points of reciprocal rank from chance"
            )
    return tuple(notes)


def counts(table: pl.DataFrame, column: str) -> dict[str, int]:
    """Value -> rows, the most frequent first."""
    found = table.group_by(column).len().sort(["len", column], descending=[True, False])
    return dict(zip(found[column].to_list(), found["len"].to_list(), strict=True))


def nested_counts(table: pl.DataFrame, column: str, inner: str) -> dict[str, dict[str, int]]:
    """Value of `column` -> value of `inner` -> rows, the most frequent first."""
    return {value: counts(table.filter(pl.col(column) == value), inner) for value in counts(table, column)}
