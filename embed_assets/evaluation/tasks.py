"""A benchmark cut into slices by the source of its queries, ready to be ranked: texts and row numbers."""

from dataclasses import dataclass

import polars as pl

from embed_assets.records import Benchmark, SliceReport

GUARD = "guard"
MASKED = "_masked"


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Queries of one source, on one corpus."""

    name: str
    corpus: str
    """Which corpus: `benchmark`, `guard` or `external_NAME`."""
    queries: pl.DataFrame
    """Schema QUERY_SCHEMA, sorted by query_id."""
    texts: list[str]
    """(queries,) what is asked, names masked or not."""
    relevant: list[list[int]]
    """(queries,) rows of the corpus."""
    corpus_size: int

    def report(self, ranks: dict[str, list[tuple[int, ...]]]) -> SliceReport:
        """The slice's report with the ranks that systems reached."""
        return SliceReport(
            name=self.name,
            corpus_size=self.corpus_size,
            query_ids=tuple(self.queries["query_id"].to_list()),
            group_ids=tuple(self.queries["group_id"].to_list()),
            repositories=tuple(self.queries["repository"].to_list()),
            languages=tuple(self.queries["language"].to_list()),
            ranks={system: tuple(rows) for system, rows in ranks.items()},
        )


def tasks_of(benchmark: Benchmark) -> list[Task]:
    """One task for each source of queries, and one more with the answers' own names masked, where any was."""
    tasks = []
    for source in sorted(benchmark.queries["source"].unique().to_list()):
        tasks += _with_masked(benchmark, benchmark.queries.filter(pl.col("source") == source), source, "benchmark")
    return tasks


def guard_tasks(guard: Benchmark) -> list[Task]:
    """The guard is one slice, whatever its sources, and one with names masked."""
    return _with_masked(guard, guard.queries, GUARD, GUARD)


def external_tasks(benchmark: Benchmark) -> list[Task]:
    """An external set is one slice, and one with names masked where it knows any; neither decides anything."""
    return _with_masked(benchmark, benchmark.queries, external_name(benchmark), external_name(benchmark))


def external_name(benchmark: Benchmark) -> str:
    return f"external_{benchmark.name}"


def _with_masked(benchmark: Benchmark, queries: pl.DataFrame, name: str, corpus: str) -> list[Task]:
    queries = queries.sort("query_id")
    row = {document: number for number, document in enumerate(benchmark.corpus["document_id"].to_list())}
    relevant = [sorted({row[document] for document in documents}) for documents in queries["relevant"].to_list()]
    plain, masked = queries["text"].to_list(), queries["masked_text"].to_list()
    variants = [(name, plain)] if plain == masked else [(name, plain), (name + MASKED, masked)]
    return [
        Task(
            name=variant,
            corpus=corpus,
            queries=queries,
            texts=texts,
            relevant=relevant,
            corpus_size=benchmark.corpus.height,
        )
        for variant, texts in variants
        if texts
    ]
