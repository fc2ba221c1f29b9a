"""Who learns and who judges: the sticky cut-off T, the sides of files, and their memory from night to night.

A query may move from the test side to training when T moves forward, never the other way round: otherwise a model
would be judged on what it, or the model it continues, has learnt. Whoever asks for a side gets the same answer every
night, because files are divided by a digest of their name and commits by a time that is written down.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embed_assets.records import Split, digest_of
from embed_assets.store import StoreError, read_json, write_json

LEAST_COMMIT_QUERIES = 50
"""With fewer there is no T: a fifth of them would decide nothing, and all sides go by file."""
TEST_SHARE_OF_COMMITS = 0.2
VALIDATION_SHARE = 0.1
TEST_SHARE_WITH_HISTORY = 0.1
"""Share of files held out where commits judge the model as well."""
TEST_SHARE_WITHOUT_HISTORY = 0.2


class SidesError(RuntimeError):
    """The record of sides cannot be read; going on without it could test a model on what it has learnt."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The division in force."""

    cutoff: int = 0
    """T, seconds since 1970. Commits after it are test; 0: there is none yet, everything goes by file."""
    validation_from: int = 0
    """Commits after it and up to T are validation."""
    learnt_until: int = 0
    """While there is no T, the newest commit that was learnt from: the first T cannot lie before it."""
    test_shares: Mapping[str, float] = field(default_factory=dict)
    """Repository -> share of its files held out; it may shrink, never grow."""
    moves: tuple[Mapping[str, Any], ...] = ()
    """Every T there was, oldest first: cutoff, decided_at, commit_queries, test_queries."""

    def of_time(self, written_at: int) -> Split:
        """Side of a query with a date.

        Raises:
            ValueError: there is no cut-off; ask `of_files`.
        """
        if not self.cutoff:
            raise ValueError("there is no cut-off yet; sides go by file")
        if written_at > self.cutoff:
            return "test"
        return "validation" if written_at > self.validation_from else "train"

    def of_file(self, repository: str, path: str) -> Split:
        """Side of a query about a file. Validation lies at the far end: a smaller test share moves no file into it."""
        position = int(digest_of("side of a file", repository, path)[:12], 16) / 16**12
        if position < self.test_shares.get(repository, TEST_SHARE_WITHOUT_HISTORY):
            return "test"
        return "validation" if position >= 1 - VALIDATION_SHARE else "train"

    def of_files(self, files: Iterable[tuple[str, str]]) -> Split:
        """Side of a query about several (repository, path): test wins over validation, validation over training."""
        sides = {self.of_file(repository, path) for repository, path in files}
        return "test" if "test" in sides else "validation" if "validation" in sides else "train"


def decide_sides(
    previous: Sides | None,
    times: Iterable[int],
    *,
    test_queries: int,
    with_history: Mapping[str, bool],
    decided_at: int,
) -> Sides:
    """Tonight's division.

    Args:
        previous: last night's; None on the first.
        times: when each commit query was written, of all repositories.
        test_queries: how many the test side aims for (`pairs.test_queries`); a fifth of all where those are fewer.
        with_history: repository -> whether its commits are read.
        decided_at: now, seconds since 1970; recorded with a new T.
    """
    previous = previous or Sides()
    ordered = sorted(times)
    target = min(test_queries, int(TEST_SHARE_OF_COMMITS * len(ordered)))
    cutoff = _cutoff(previous, ordered, target)
    moves, validation_from = previous.moves, previous.validation_from
    if cutoff != previous.cutoff:
        held_out = len(ordered) - bisect_right(ordered, cutoff)
        moves += (
            {"cutoff": cutoff, "decided_at": decided_at, "commit_queries": len(ordered), "test_queries": held_out},
        )
        validation_from = max(validation_from, _validation_from(ordered, cutoff))
    return Sides(
        cutoff=cutoff,
        validation_from=validation_from,
        learnt_until=previous.learnt_until if cutoff else max([previous.learnt_until, *ordered[-1:]]),
        test_shares=_test_shares(previous, with_history, history_judges=bool(cutoff)),
        moves=moves,
    )


def _cutoff(previous: Sides, ordered: Sequence[int], target: int) -> int:
    if not previous.cutoff:
        if len(ordered) < LEAST_COMMIT_QUERIES:
            return 0
        return max(ordered[-target - 1], previous.learnt_until)
    held_out = len(ordered) - bisect_right(ordered, previous.cutoff)
    if target and held_out >= 2 * target:
        return max(ordered[-target - 1], previous.cutoff)
    return previous.cutoff


def _validation_from(ordered: Sequence[int], cutoff: int) -> int:
    """The time that has the newest tenth of the queries up to `cutoff` after it."""
    learnable = ordered[: bisect_right(ordered, cutoff)]
    held_back = int(VALIDATION_SHARE * len(learnable))
    return learnable[-held_back - 1] if learnable else cutoff


def _test_shares(previous: Sides, with_history: Mapping[str, bool], *, history_judges: bool) -> dict[str, float]:
    shares = dict(previous.test_shares)
    for repository, has_history in with_history.items():
        share = TEST_SHARE_WITH_HISTORY if has_history and history_judges else TEST_SHARE_WITHOUT_HISTORY
        shares[repository] = min(share, shares.get(repository, share))
    return shares


def read_sides(path: Path) -> Sides | None:
    """Last night's sides; None on the first night.

    Raises:
        SidesError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        document = read_json(path)
        return Sides(
            cutoff=int(document["cutoff"]),
            validation_from=int(document["validation_from"]),
            learnt_until=int(document["learnt_until"]),
            test_shares={str(name): float(share) for name, share in document["test_shares"].items()},
            moves=tuple(dict(move) for move in document["moves"]),
        )
    except (StoreError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SidesError(
            f"{path} is damaged ({error}); restore it from a backup, or delete the whole data directory: without it "
            f"nobody knows which queries the live model has learnt from"
        ) from error


def write_sides(path: Path, sides: Sides) -> None:
    write_json(path, asdict(sides))
