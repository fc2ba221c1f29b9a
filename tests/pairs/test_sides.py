"""Sides stay: whatever is added, night after night, nothing that was learnt is ever judged on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embed_assets.pairs.sides import (
    LEAST_COMMIT_QUERIES,
    Sides,
    SidesError,
    decide_files,
    decide_sides,
    read_sides,
    write_sides,
)


def decide(previous: Sides | None, times: list[int], *, history: bool = True, test_queries: int = 20) -> Sides:
    return decide_sides(
        previous, times, test_queries=test_queries, with_history={"shop": history}, decided_at=max(times, default=0)
    )


def test_the_first_cut_off_leaves_a_fifth_or_as_many_as_are_asked_for() -> None:
    few = decide(None, list(range(100)), test_queries=300)
    assert sum(few.of_time(time) == "test" for time in range(100)) == 20
    many = decide(None, list(range(10_000)), test_queries=300)
    assert sum(many.of_time(time) == "test" for time in range(10_000)) == 300
    assert sum(many.of_time(time) == "train" for time in range(10_000)) == 9_700


def test_with_too_few_commits_there_is_no_cut_off() -> None:
    sides = decide(None, list(range(LEAST_COMMIT_QUERIES - 1)))
    assert sides.cutoff == 0
    with pytest.raises(ValueError, match="no cut-off"):
        sides.of_time(1)


def test_the_first_cut_off_never_lies_before_what_was_learnt_without_one() -> None:
    before = decide(None, list(range(40)))
    after = decide(before, list(range(60)))
    assert after.cutoff >= 39


def test_a_cut_off_follows_that_of_a_warm_start_and_what_comes_later_is_test() -> None:
    first = decide(None, list(range(1_000)), test_queries=100)
    same = {"test_queries": 100, "with_history": {"shop": True}, "decided_at": 0}
    assert decide_sides(first, range(1_000), learnt_until=first.cutoff - 5, **same).cutoff == first.cutoff  # type: ignore[arg-type]
    second = decide_sides(first, range(1_000), learnt_until=950, **same)  # type: ignore[arg-type]
    assert [second.of_time(time) for time in (950, 951, 999, 1_000)] == ["train", "test", "test", None]
    assert decide_sides(second, range(1_000), **same) == second, "the start may go, what it learnt stays"  # type: ignore[arg-type]
    beyond = decide_sides(second, range(1_000), learnt_until=1_050, **same)  # type: ignore[arg-type]
    assert [beyond.of_time(time) for time in (999, 1_050, 1_051)] == ["train", "train", None]


def test_the_test_side_is_frozen_until_a_tenth_of_it_can_be_renewed() -> None:
    first = decide(None, list(range(1_000)), test_queries=100)
    second = decide(first, list(range(1_009)), test_queries=100)
    assert second == first
    assert second.of_time(999) == "test" and second.of_time(1_000) is None
    third = decide(second, list(range(1_010)), test_queries=100)
    assert (third.cutoff, third.test_until) == (first.cutoff + 10, 1_009)
    assert [third.of_time(time) for time in (909, 910, 1_009, 1_010)] == ["train", "test", "test", None]
    assert [move["cutoff"] for move in third.moves] == [first.cutoff, third.cutoff]


def test_what_waits_becomes_test_even_where_the_cut_off_cannot_move() -> None:
    """Everything was learnt without a cut-off: the first one leaves nothing to judge by, the next commits do."""
    learnt = decide(None, list(range(40)))
    first = decide(learnt, [*range(40), *range(41, 53)])
    second = decide(first, [*range(40), *range(41, 53), *range(60, 70)])
    assert {second.of_time(time) for time in range(40)} == {"train"}
    assert {second.of_time(time) for time in range(60, 70)} == {"test"}


def test_history_shrinks_the_share_of_files_held_out_and_nothing_grows_it_again() -> None:
    without = decide(None, [], history=False)
    with_history = decide(without, list(range(1_000)))
    again = decide(with_history, list(range(1_000)), history=False)
    assert without.test_shares["shop"] > with_history.test_shares["shop"] == again.test_shares["shop"]


def test_shares_of_files_are_what_they_claim() -> None:
    sides = decide(None, list(range(1_000)))
    found = [sides.of_file("shop", f"src/file_{number}.py") for number in range(4_000)]
    assert found.count("test") / 4_000 == pytest.approx(0.1, abs=0.02)
    assert found.count("validation") / 4_000 == pytest.approx(0.1, abs=0.02)


def shares(sides: Sides, documented: dict[str, int]) -> dict[str, float]:
    """Side -> its share of the documented functions."""
    total = sum(documented.values()) or 1
    of_side: dict[str, float] = {"train": 0.0, "validation": 0.0, "test": 0.0}
    for path, count in documented.items():
        of_side[sides.of_file("shop", path)] += count / total
    return of_side


def test_one_large_file_goes_to_training_and_the_small_ones_fill_the_shares() -> None:
    documented = {"large.py": 150, **{f"{number}.py": 3 for number in range(100)}}
    found = shares(decide_files(Sides(test_shares={"shop": 0.1}), {"shop": documented}), documented)
    assert found["test"] == pytest.approx(0.1, abs=0.01)
    assert found["validation"] == pytest.approx(0.1, abs=0.01)


def test_a_file_keeps_its_side_whatever_comes_and_grows() -> None:
    sides = decide_files(Sides(), {"shop": {f"{number}.py": 2 for number in range(50)}})
    later = decide_files(sides, {"shop": {f"{number}.py": 2 + number % 7 for number in range(90)}, "new": {"a.py": 1}})
    assert all(later.of_file("shop", f"{number}.py") == sides.of_file("shop", f"{number}.py") for number in range(50))
    assert decide_files(later, {}) == later


def test_once_commits_judge_part_of_the_files_held_out_is_learnt_from() -> None:
    documented = {f"{number}.py": 1 for number in range(200)}
    before = decide_files(Sides(test_shares={"shop": 0.2}), {"shop": documented})
    after = decide_files(replace(before, test_shares={"shop": 0.1}), {"shop": documented})
    assert shares(before, documented)["test"] == pytest.approx(0.2, abs=0.01)
    assert shares(after, documented)["test"] == pytest.approx(0.1, abs=0.01)
    moved = {path for path in documented if before.of_file("shop", path) != after.of_file("shop", path)}
    assert {(before.of_file("shop", path), after.of_file("shop", path)) for path in moved} == {("test", "train")}


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.integers(0, 40), st.integers(0, 12), max_size=25), min_size=1, max_size=6))
def test_no_file_that_was_learnt_from_ever_judges(nights: list[dict[int, int]]) -> None:
    """Files come, go, grow and shrink; commits begin to judge on the third night."""
    sides, learnt = Sides(test_shares={"shop": 0.2}), set[int]()
    for night, counted in enumerate(nights):
        shares_now = {"shop": 0.2 if night < 2 else 0.1}
        sides = decide_files(replace(sides, test_shares=shares_now), {"shop": {str(k): v for k, v in counted.items()}})
        of = {number: sides.of_file("shop", str(number)) for number in counted}
        assert not {number for number, side in of.items() if side == "test"} & learnt
        learnt |= {number for number, side in of.items() if side == "train"}


def test_of_several_files_the_judging_side_wins() -> None:
    sides = Sides(test_shares={"shop": 0.2})
    by_side = {sides.of_file("shop", f"{number}.py"): f"{number}.py" for number in range(200)}
    files = {side: ("shop", path) for side, path in by_side.items()}
    assert sides.of_files([files["train"], files["test"], files["validation"]]) == "test"
    assert sides.of_files([files["train"], files["validation"]]) == "validation"
    assert sides.of_files([files["train"]]) == "train"


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 80), st.booleans()), min_size=2, max_size=12), st.integers(20, 60))
def test_nothing_learnt_is_ever_judged_on(nights: list[tuple[int, bool]], test_queries: int) -> None:
    """Arbitrary numbers of new commits each night, history switched on and off: train never becomes test."""
    sides: Sides | None = None
    times: list[int] = []
    learnt_times: set[int] = set()
    learnt_files: set[str] = set()
    files = [f"src/{number}.py" for number in range(60)]
    for added, history in nights:
        start = times[-1] + 1 if times else 1_000
        times += range(start, start + added)
        seen = times if history else []
        previous, sides = sides, decide(sides, seen, history=history, test_queries=test_queries)
        assert previous is None or sides.cutoff >= previous.cutoff
        assert sides.cutoff <= sides.test_until
        if previous is not None and sides.cutoff == previous.cutoff and sides.moves == previous.moves:
            frozen = {time for time in seen if previous.cutoff and previous.of_time(time) == "test"}
            assert not sides.cutoff or frozen == {time for time in seen if sides.of_time(time) == "test"}
        if sides.cutoff:
            judged = {time for time in seen if sides.of_time(time) == "test"}
            assert not judged & learnt_times
            learnt_times |= {time for time in seen if sides.of_time(time) == "train"}
        else:
            learnt_times |= set(seen)
        assert not {file for file in files if sides.of_file("shop", file) == "test"} & learnt_files
        learnt_files |= {file for file in files if sides.of_file("shop", file) == "train"}


def test_sides_survive_the_disk_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    assert read_sides(path) is None
    sides = decide(None, list(range(1_000)))
    write_sides(path, sides)
    assert read_sides(path) == sides
    earlier = json.loads(path.read_text()) | {"validation_from": 700}  # written when the newest tenth was held back
    path.write_text(json.dumps(earlier))
    assert read_sides(path) == sides
    path.write_text('{"cutoff": 12}')
    with pytest.raises(SidesError, match=r"splits\.json is damaged"):
        read_sides(path)
