"""Which held-out queries decide about a promotion. docs/gate.md explains it to users."""

from dataclasses import replace

from embed_assets.records import JUDGED_SOURCES, RecallReport, SliceReport
from embed_assets.settings import GateSettings

COMMIT, DOCSTRING = JUDGED_SOURCES
GUARD = "guard"
"""These slices the gate reads; all others are reported beside it."""


def judged_queries(report: RecallReport, policy: GateSettings) -> tuple[SliceReport, ...]:
    """The slices whose queries decide; empty where they are too few to prove anything.

    Commit queries alone where there are `minimum_commit_queries`, since they are what people ask. Else commit and
    docstring queries together: what a short history proves is worth keeping. Neither with fewer than `minimum_queries`.
    """
    commit = report.slice(COMMIT)
    if commit is not None and len(commit.query_ids) >= max(policy.minimum_commit_queries, policy.minimum_queries):
        return (commit,)
    found = (commit, report.slice(DOCSTRING))
    kinds = tuple(part for part in found if part is not None and part.query_ids)
    return kinds if sum(len(part.query_ids) for part in kinds) >= policy.minimum_queries else ()


def pooled(kinds: tuple[SliceReport, ...]) -> SliceReport:
    """The queries of all kinds as one slice, each query with one vote.

    Ids and clusters carry their kind, so that a commit and a file of one name stay two clusters.
    """
    if len(kinds) == 1:
        return kinds[0]

    def joined(column: str) -> tuple[str, ...]:
        return tuple(value for part in kinds for value in getattr(part, column))

    def marked(column: str) -> tuple[str, ...]:
        return tuple(f"{part.name}:{value}" for part in kinds for value in getattr(part, column))

    return replace(
        kinds[0],
        name=" and ".join(part.name for part in kinds),
        query_ids=marked("query_ids"),
        group_ids=marked("group_ids"),
        repositories=joined("repositories"),
        languages=joined("languages"),
        ranks={
            system: tuple(ranks for part in kinds for ranks in part.ranks[system])
            for system in kinds[0].ranks
            if all(system in part.ranks for part in kinds)
        },
    )
