"""Sides stay: whatever is added, night after night, nothing that was learnt is ever judged on."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embed_assets.pairs.sides import LEAST_COMMIT_QUERIES, Sides, SidesError, decide_sides, read_sides, write_sides


def decide(previous: Sides | None, times: list[int], *, history: bool = True, test_queries: int = 20) -> Sides:
    return decide_sides(
        previous, times, test_queries=test_queries, with_history={"shop": history}, decided_at=max(times, default=0)
    )


def test_the_first_cut_off_leaves_a_fifth_or_as_many_as_are_asked_for() -> None:
    few = decide(None, list(range(100)), test_queries=300)
    assert sum(few.of_time(time) == "test" for time in range(100)) == 20
    many = decide(None, list(range(10_000)), test_queries=300)
    assert sum(many.of_time(time) == "test" for time in range(10_000)) == 300
    assert sum(many.of_time(time) == "validation" for time in range(10_000)) == 970


def test_with_too_few_commits_there_is_no_cut_off() -> None:
    sides = decide(None, list(range(LEAST_COMMIT_QUERIES - 1)))
    assert sides.cutoff == 0
    with pytest.raises(ValueError, match="no cut-off"):
        sides.of_time(1)


def test_the_first_cut_off_never_lies_before_what_was_learnt_without_one() -> None:
    before = decide(None, list(range(40)))
    after = decide(before, list(range(60)))
    assert after.cutoff >= 39


def test_the_cut_off_stays_until_the_test_side_has_doubled() -> None:
    first = decide(None, list(range(1_000)))
    second = decide(first, list(range(1_019)))
    assert second.cutoff == first.cutoff
    third = decide(second, list(range(1_020)))
    assert third.cutoff > first.cutoff
    assert sum(third.of_time(time) == "test" for time in range(1_020)) == 20
    assert [move["cutoff"] for move in third.moves] == [first.cutoff, third.cutoff]


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


def test_of_several_files_the_judging_side_wins() -> None:
    sides = Sides(test_shares={"shop": 0.2})
    by_side = {sides.of_file("shop", f"{number}.py"): f"{number}.py" for number in range(200)}
    files = {side: ("shop", path) for side, path in by_side.items()}
    assert sides.of_files([files["train"], files["test"], files["validation"]]) == "test"
    assert sides.of_files([files["train"], files["validation"]]) == "validation"
    assert sides.of_files([files["train"]]) == "train"


@settings(max_examples=100, deadline=None)
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
        assert sides.validation_from <= sides.cutoff
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
    path.write_text('{"cutoff": 12}')
    with pytest.raises(SidesError, match=r"splits\.json is damaged"):
        read_sides(path)
