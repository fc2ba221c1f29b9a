"""A recall report as tables: slices by systems, groups of queries, and single queries that gained or lost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embed_assets.evaluation.metrics import first_ranks, mean_recall, mean_reciprocal_rank, reciprocal_rank
from embed_assets.records import BASE, Benchmark, RecallReport, SliceReport

SYSTEMS = (
    "bm25", "lexical", "base", "live", "candidate", "hybrid_base", "hybrid_live", "hybrid_candidate", "fused_base",
    "fused_live", "fused_candidate", "rrf_base", "rrf_live", "rrf_candidate",
)  # fmt: skip
"""In the order of the table. `live` is left out while it is the base model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One system on one slice, or on a part of it. Figures are shares."""

    slice: str
    group: str
    """Language or repository; empty for the whole slice."""
    system: str
    queries: int
    recall_at_1: float
    recall_at_10: float
    mrr_at_10: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A query and where its best relevant document stood before and after."""

    query: str
    answer: str
    """`path name` of that document."""
    repository: str
    slice: str
    rank_before: int
    """With the live model, 1-based."""
    rank_after: int
    """With the candidate."""


def recall_rows(report: RecallReport) -> list[Row]:
    """Every slice by every system."""
    return [
        _row(part, system, "", range(len(part.query_ids))) for part in report.slices for system in _shown(report, part)
    ]


def rows_by_language(report: RecallReport) -> list[Row]:
    """Live and candidate on each language of each slice."""
    return _grouped(report, lambda part: part.languages)


def rows_by_repository(report: RecallReport) -> list[Row]:
    """Live and candidate on each repository of each slice."""
    return _grouped(report, lambda part: part.repositories)


def recall_table(report: RecallReport) -> str:
    """All slices as one markdown table, which a terminal shows as well."""
    header = ("queries", "system", "recall@1", "recall@10", "MRR@10")
    lines = []
    for part in report.slices:
        base = mean_reciprocal_rank(part.ranks["base"])
        for number, system in enumerate(_shown(report, part)):
            row = _row(part, system, "", range(len(part.query_ids)))
            change = f" ({100 * (row.mrr_at_10 - base):+.1f})" if system == "candidate" else ""
            label = f"{part.name} ({row.queries:,} on {part.corpus_size:,})" if number == 0 else ""
            figures = (f"{row.recall_at_1:.1%}", f"{row.recall_at_10:.1%}", f"{row.mrr_at_10:.1%}{change}")
            lines.append((label, system, *figures))
    return markdown_table(header, lines)


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns padded to equal width."""
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    rows = [header, ["-" * width for width in widths], *lines]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def improved_examples(report: RecallReport, benchmark: Benchmark, n: int = 5) -> list[Example]:
    """The `n` queries of the benchmark whose reciprocal rank rose most from live to candidate, best first."""
    return [example for gain, example in _examples(report, benchmark)[:n] if gain > 0]


def worst_losses(report: RecallReport, benchmark: Benchmark, n: int = 5) -> list[Example]:
    """The `n` queries of the benchmark whose reciprocal rank fell most, worst first."""
    return [example for gain, example in _examples(report, benchmark)[::-1][:n] if gain < 0]


def _examples(report: RecallReport, benchmark: Benchmark) -> list[tuple[float, Example]]:
    """Every query of the benchmark's plain slices with its gain, largest first; of equal ones the longest way first."""
    asked = {row["query_id"]: row for row in benchmark.queries.iter_rows(named=True)}
    documents = {row["document_id"]: f"{row['path']} {row['name']}" for row in benchmark.corpus.iter_rows(named=True)}
    found = []
    for part in report.slices:
        if part.name.endswith("_masked"):
            continue
        live, candidate = part.ranks["live"], part.ranks["candidate"]
        gains = reciprocal_rank(candidate, part.corpus_size) - reciprocal_rank(live, part.corpus_size)
        before, after = first_ranks(live).tolist(), first_ranks(candidate).tolist()
        for number, query_id in enumerate(part.query_ids):
            if query_id not in asked:
                continue
            query = asked[query_id]
            example = Example(
                query=query["text"],
                answer=documents[query["relevant"][0]],
                repository=query["repository"],
                slice=part.name,
                rank_before=before[number],
                rank_after=after[number],
            )
            found.append((float(gains[number]), example))
    return sorted(found, key=lambda pair: (-pair[0], pair[1].rank_after - pair[1].rank_before, pair[1].query))


def _grouped(report: RecallReport, groups_of: Callable[[SliceReport], tuple[str, ...]]) -> list[Row]:
    rows = []
    for part in report.slices:
        groups = groups_of(part)
        for group in sorted(set(groups)):
            chosen = [number for number, value in enumerate(groups) if value == group]
            rows += [_row(part, system, group, chosen) for system in ("live", "candidate")]
    return rows


def _shown(report: RecallReport, part: SliceReport) -> list[str]:
    hidden = {"live", "hybrid_live", "fused_live", "rrf_live"} if report.live_id == BASE else set()
    return [system for system in SYSTEMS if system in part.ranks and system not in hidden]


def _row(part: SliceReport, system: str, group: str, queries: Sequence[int]) -> Row:
    ranks = [part.ranks[system][number] for number in queries]
    return Row(
        slice=part.name,
        group=group,
        system=system,
        queries=len(ranks),
        recall_at_1=mean_recall(ranks, 1),
        recall_at_10=mean_recall(ranks, 10),
        mrr_at_10=mean_reciprocal_rank(ranks),
    )
