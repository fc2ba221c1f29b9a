"""Is a recall report whole and possible? The gate judges nothing else.

Ranks are numbers that a broken or hostile evaluation could have written: lists of different lengths, ranks of zero
or beyond the corpus, NaN, a query counted twice. Any of it is an error, never a verdict.
"""

from collections.abc import Sequence

from embed_assets.records import RecallReport, SliceReport

JUDGED = ("base", "live", "candidate")
"""Systems that every slice must have ranks of."""


class GateError(ValueError):
    """A report that no verdict can be based on."""


def require_sound(report: RecallReport) -> None:
    """
    Raises:
        GateError: the report contradicts itself; the message names slice, system and query.
    """
    who = f"report of candidate {report.candidate_id}"
    if not _is_count(report.attempt):
        raise GateError(f"{who}: attempt is {report.attempt!r}; allowed: 1 or more")
    for name in ("candidate_id", "candidate_digest", "live_id", "live_digest", "benchmark_digest"):
        value = getattr(report, name)
        if not isinstance(value, str) or not value:
            raise GateError(f"{who}: {name} is {value!r}; allowed: a name or digest")
    names = [part.name for part in report.slices]
    if len(set(names)) != len(names):
        raise GateError(f"{who}: two slices share a name among {', '.join(names)}")
    for part in report.slices:
        _require_sound_slice(part, f"{who}, slice {part.name}")


def _require_sound_slice(part: SliceReport, where: str) -> None:
    queries = len(part.query_ids)
    if len(set(part.query_ids)) != queries:
        raise GateError(f"{where}: a query is counted twice")
    for column in ("group_ids", "repositories", "languages"):
        if len(getattr(part, column)) != queries:
            raise GateError(f"{where}: {len(getattr(part, column))} {column} for {queries} queries")
    missing = [system for system in JUDGED if system not in part.ranks]
    if missing:
        raise GateError(f"{where}: no ranks of {', '.join(missing)}")
    for system, rows in part.ranks.items():
        if len(rows) != queries:
            raise GateError(f"{where}: {system} has ranks of {len(rows)} queries, expected {queries}")
        for query, ranks in zip(part.query_ids, rows, strict=True):
            if not _are_ranks(ranks, part.corpus_size):
                raise GateError(
                    f"{where}, query {query}: {system} has ranks {list(ranks)[:5]}; allowed: ascending whole numbers "
                    f"from 1 to {part.corpus_size}"
                )
    for system, rows in part.ranks.items():
        for query, ranks, expected in zip(part.query_ids, rows, part.ranks["live"], strict=True):
            if len(ranks) != len(expected):
                raise GateError(
                    f"{where}, query {query}: {system} ranks {len(ranks)} relevant documents, live {len(expected)}"
                )


def _are_ranks(ranks: Sequence[object], corpus_size: int) -> bool:
    previous = 0
    for rank in ranks:
        if not _is_count(rank) or not previous < rank <= corpus_size:  # type: ignore[operator]
            return False
        previous = rank  # type: ignore[assignment]
    return bool(ranks)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
