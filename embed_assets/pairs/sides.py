"""Who learns and who judges: the sticky cut-off T, the sides of files, and their memory from night to night.

A query may move from the test side to training when T moves forward, never the other way round: otherwise a model
would be judged on what it, or the model it continues, has learnt. Whoever asks for a side gets the same answer every
night, because the side of a file and the times that divide commits are written down.

The test side is frozen with T: commits written later wait. Once enough of them wait, T moves and both sides are
renewed at once: the new queries judge, and as many of the oldest are learnt from at last.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embed_assets.files import StoreError, read_json, write_json
from embed_assets.records import Split, digest_of

LEAST_COMMIT_QUERIES = 50
"""With fewer there is no T: a fifth of them would decide nothing, and all sides go by file."""
TEST_SHARE_OF_COMMITS = 0.2
RENEWED_SHARE = 0.1
"""The benchmark is renewed when so much of it can be: more often would judge a few new commits by a new benchmark every
night, less often would keep them from being learnt."""
VALIDATION_SHARE = 0.1
"""Of documented functions, by file. No commit is held back to say when to stop: the newest teach most."""
TEST_SHARE_WITH_HISTORY = 0.1
"""Share of documented functions held out, by file, where commits judge the model as well."""
TEST_SHARE_WITHOUT_HISTORY = 0.2
RELEASED_FROM = 1.5
"""So many times its share, and files leave the test side for training: commits began to judge as well."""


class SidesError(RuntimeError):
    """The record of sides cannot be read; going on without it could test a model on what it has learnt."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The division in force."""

    cutoff: int = 0
    """T, seconds since 1970. Commits after it are test; 0: there is none yet, everything goes by file."""
    test_until: int = 0
    """Commits after T and up to it are test; later ones wait until T moves."""
    learnt_until: int = 0
    """The newest commit that was learnt from while there was no T, or by what the training starts from: no T lies
    before it."""
    test_shares: Mapping[str, float] = field(default_factory=dict)
    """Repository -> share of its documented functions held out; it may shrink, never grow."""
    files: Mapping[str, Mapping[str, Split]] = field(default_factory=dict)
    """Repository -> path -> side, of every file that ever held a function."""
    moves: tuple[Mapping[str, Any], ...] = ()
    """Every T there was, oldest first: cutoff, decided_at, commit_queries, test_queries."""

    def of_time(self, written_at: int) -> Split | None:
        """Side of a query with a date; None while it waits for the next cut-off.

        Raises:
            ValueError: there is no cut-off; ask `of_files`.
        """
        if not self.cutoff:
            raise ValueError("there is no cut-off yet; sides go by file")
        if written_at > self.test_until:
            return None
        return "test" if written_at > self.cutoff else "train"

    def of_file(self, repository: str, path: str) -> Split:
        """Side of a query about a file: the recorded one, or what its name's digest says."""
        return self.files.get(repository, {}).get(path) or self._by_digest(repository, path)

    def _by_digest(self, repository: str, path: str) -> Split:
        position = _position(repository, path)
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
    learnt_until: int = 0,
) -> Sides:
    """Tonight's division.

    Args:
        previous: last night's; None on the first.
        times: when each commit query was written, of all repositories.
        test_queries: how many the test side aims for (`pairs.test_queries`); a fifth of all where those are fewer.
        with_history: repository -> whether its commits are read.
        decided_at: now, seconds since 1970; recorded with a new T.
        learnt_until: T of what the training will start from, where it learnt from these repositories: this T lies
            before it on no night.
    """
    previous = previous or Sides()
    previous = replace(previous, learnt_until=max(previous.learnt_until, learnt_until))
    ordered = sorted(times)
    target = min(test_queries, int(TEST_SHARE_OF_COMMITS * len(ordered)))
    cutoff, moves, test_until = previous.cutoff, previous.moves, previous.test_until
    if _renewal_is_due(previous, ordered, target):
        cutoff = max(ordered[-target - 1], previous.cutoff, previous.learnt_until)
        held_out = len(ordered) - bisect_right(ordered, cutoff)
        moves += (
            {"cutoff": cutoff, "decided_at": decided_at, "commit_queries": len(ordered), "test_queries": held_out},
        )
        test_until = max(test_until, ordered[-1], cutoff)
    return Sides(
        cutoff=cutoff,
        test_until=test_until,
        files=previous.files,
        learnt_until=previous.learnt_until if cutoff else max([previous.learnt_until, *ordered[-1:]]),
        test_shares=_test_shares(previous, with_history, history_judges=bool(cutoff)),
        moves=moves,
    )


def _renewal_is_due(previous: Sides, ordered: Sequence[int], target: int) -> bool:
    if not previous.cutoff:
        return len(ordered) >= LEAST_COMMIT_QUERIES
    if previous.cutoff < previous.learnt_until:
        return bool(ordered)
    waiting = len(ordered) - bisect_right(ordered, previous.test_until)
    return waiting > 0 and waiting >= RENEWED_SHARE * target


def _test_shares(previous: Sides, with_history: Mapping[str, bool], *, history_judges: bool) -> dict[str, float]:
    shares = dict(previous.test_shares)
    for repository, has_history in with_history.items():
        share = TEST_SHARE_WITH_HISTORY if has_history and history_judges else TEST_SHARE_WITHOUT_HISTORY
        shares[repository] = min(share, shares.get(repository, share))
    return shares


def decide_files(sides: Sides, documented: Mapping[str, Mapping[str, int]]) -> Sides:
    """Gives every new file a side, so that each side holds its share of the documented functions.

    A digest of the name decides the order, not the side: one large file would be half of the test side, or all of
    training. A file that does not fit goes to training; one that has a side keeps it.

    Args:
        documented: repository -> path -> documented functions, of every file that holds a function.
    """
    files = {repository: dict(known) for repository, known in sides.files.items()}
    for repository, counted in documented.items():
        known = files.setdefault(repository, {})
        total = sum(counted.values())
        room: dict[Split, float] = {
            "test": sides.test_shares.get(repository, TEST_SHARE_WITHOUT_HISTORY) * total,
            "validation": VALIDATION_SHARE * total,
        }
        _release(known, counted, most=RELEASED_FROM * room["test"], wanted=room["test"])
        for path, side in known.items():
            if side != "train":
                room[side] -= counted.get(path, 0)
        for path in sorted(counted.keys() - known.keys(), key=lambda path: _position(repository, path)):
            size = counted[path]
            fitting: list[Split] = [side for side, left in room.items() if size / 2 <= left]
            known[path] = (fitting[0] if fitting else "train") if size else sides._by_digest(repository, path)
            if known[path] in room:
                room[known[path]] -= size
    return replace(sides, files=files)


def _release(known: dict[str, Split], counted: Mapping[str, int], *, most: float, wanted: float) -> None:
    """Files of a test side that outgrew its share go to training; what was learnt stays learnt."""
    held_out = sum(counted.get(path, 0) for path, side in known.items() if side == "test")
    for path in sorted(path for path, side in known.items() if side == "test") if held_out > most else ():
        if held_out - counted.get(path, 0) >= wanted:
            known[path] = "train"
            held_out -= counted.get(path, 0)


def _position(repository: str, path: str) -> float:
    """Of a file between 0 and 1, by its name."""
    return int(digest_of("side of a file", repository, path)[:12], 16) / 16**12


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
            test_until=int(document.get("test_until", document["cutoff"])),
            learnt_until=int(document["learnt_until"]),
            test_shares={str(name): float(share) for name, share in document["test_shares"].items()},
            files={str(name): dict(known) for name, known in document.get("files", {}).items()},
            moves=tuple(dict(move) for move in document["moves"]),
        )
    except (StoreError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SidesError(
            f"{path} is damaged ({error}); restore it from a backup, or delete the whole data directory: without it "
            f"nobody knows which queries the live model has learnt from"
        ) from error


def write_sides(path: Path, sides: Sides) -> None:
    write_json(path, asdict(sides))
