"""Recall reports made of given ranks, for tests of everything that reads one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from embed_assets.records import RecallReport, SliceReport

CORPUS = 1_000


def one_slice(
    name: str,
    live: Sequence[int],
    candidate: Sequence[int],
    *,
    base: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
    **changes: Any,
) -> SliceReport:
    """A slice whose queries have one relevant document each, at the given ranks."""
    count = len(live)
    values: dict[str, Any] = {
        "name": name,
        "corpus_size": CORPUS,
        "query_ids": tuple(f"{name}-{number}" for number in range(count)),
        "group_ids": tuple(groups) if groups is not None else tuple(f"group-{number}" for number in range(count)),
        "repositories": ("shop",) * count,
        "languages": ("python",) * count,
        "ranks": {
            "base": tuple((int(rank),) for rank in (live if base is None else base)),
            "live": tuple((int(rank),) for rank in live),
            "candidate": tuple((int(rank),) for rank in candidate),
        },
    }
    return SliceReport(**{**values, **changes})


def make_report(*slices: SliceReport, **changes: Any) -> RecallReport:
    values: dict[str, Any] = {
        "candidate_id": "20261124-020000-abcdef01",
        "candidate_digest": "c" * 40,
        "live_id": "base",
        "live_digest": "b" * 40,
        "base_model": "minilm",
        "benchmark_digest": "d" * 40,
        "guard_digest": "e" * 40,
        "pairs_digest": "f" * 40,
        "cutoff": 0,
        "attempt": 1,
        "slices": slices,
        "created_at": "2026-11-24T02:00:00+00:00",
    }
    return RecallReport(**{**values, **changes})


def ranks_of(count: int, seed: int, *, mean: float = 8.0) -> list[int]:
    """Plausible ranks: geometric, so that many are 1."""
    drawn = np.random.default_rng(seed).geometric(1 / mean, count)
    return [min(int(rank), CORPUS) for rank in drawn]


def improved(ranks: Sequence[int], share: float, seed: int) -> list[int]:
    """`share` of the queries moved to rank 1."""
    chosen = np.random.default_rng(seed).random(len(ranks)) < share
    return [1 if moved else int(rank) for rank, moved in zip(ranks, chosen, strict=True)]


def good_report(**changes: Any) -> RecallReport:
    """Passes the default gate by far: a third of 300 docstring queries moved to the top, the guard unmoved."""
    before, guard = ranks_of(300, 0), ranks_of(300, 1)
    return make_report(
        one_slice("docstring", before, improved(before, 0.33, 2)), one_slice("guard", guard, guard), **changes
    )
