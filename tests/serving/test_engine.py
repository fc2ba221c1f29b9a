"""Leases, swaps and their failures, with generations that are only names."""

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from embed_assets.serving.engine import Engine, NotReadyError, SwapInProgressError, UnknownModelError
from embed_assets.serving.generation import Generation


def generation(checkpoint_id: str) -> Generation:
    model = f"tiny@{checkpoint_id}"
    return cast(
        Generation,
        SimpleNamespace(
            checkpoint_id=checkpoint_id, model=model, aliases=frozenset({"tiny", "org/tiny"}),
            digest=f"d-{checkpoint_id}", space_id=f"s-{checkpoint_id}", describe=lambda: {"model": model},
        ),
    )  # fmt: skip


class Loads:
    """Counts loads; those named in `broken` fail, all wait for `gate`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, checkpoint_id: str) -> Generation:
        self.asked.append(checkpoint_id)
        assert self.gate.wait(60)
        if checkpoint_id in self.broken:
            raise ValueError(f"{checkpoint_id} is broken")
        return generation(checkpoint_id)


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def engine(loads: Loads) -> Engine:
    return Engine(loads, drain_seconds=0.2)


def test_nothing_answers_before_the_first_model(engine: Engine) -> None:
    assert not engine.ready
    with pytest.raises(NotReadyError), engine.lease():
        pass


def test_a_lease_keeps_its_generation_over_a_swap(engine: Engine) -> None:
    engine.swap_to("a")
    with engine.lease() as leased:
        swap = engine.swap_to("b")
        assert not swap.drained
        assert leased.checkpoint_id == "a"
        assert engine.current.checkpoint_id == "b"
        assert engine.status()["previous"]["in_flight"] == 1
    assert engine.status()["previous"]["in_flight"] == 0


def test_a_swap_waits_for_the_requests_of_the_replaced_model(loads: Loads) -> None:
    engine = Engine(loads, drain_seconds=60)
    engine.swap_to("a")
    leased, release = threading.Event(), threading.Event()

    def hold() -> None:
        with engine.lease():
            leased.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    leased.wait(60)
    threading.Timer(0.1, release.set).start()
    swap = engine.swap_to("b")
    holder.join()
    assert swap.drained
    assert 0.09 <= swap.seconds < 30


def test_the_previous_generation_is_at_hand(engine: Engine, loads: Loads) -> None:
    for name in ("a", "b", "a", "b"):
        engine.swap_to(name)
    assert loads.asked == ["a", "b"]
    engine.swap_to("c")
    engine.swap_to("a")
    assert loads.asked == ["a", "b", "c", "a"], "one previous generation is kept, not all"


def test_swapping_to_what_is_live_changes_nothing(engine: Engine, loads: Loads) -> None:
    first = engine.swap_to("a")
    again = engine.swap_to("a")
    assert (first.outcome, again.outcome) == ("swapped", "unchanged")
    assert again.model == "tiny@a"
    assert loads.asked == ["a"]


def test_a_failed_swap_changes_nothing_and_is_remembered(engine: Engine, loads: Loads) -> None:
    engine.swap_to("a")
    engine.swap_to("b")
    loads.broken.add("c")
    with pytest.raises(ValueError, match="c is broken"):
        engine.swap_to("c")
    assert [one.checkpoint_id for one in engine.generations()] == ["b", "a"]
    failure = engine.status()["last_failure"]
    assert (failure["checkpoint_id"], failure["error"]) == ("c", "c is broken")
    assert engine.swap_to("a").load_seconds == 0
    assert engine.status()["last_failure"] is None


def test_a_second_swap_meanwhile_is_refused(engine: Engine, loads: Loads) -> None:
    loads.gate.clear()
    first = threading.Thread(target=lambda: engine.swap_to("a"))
    first.start()
    while not loads.asked:
        time.sleep(0.001)
    with pytest.raises(SwapInProgressError, match="a swap to a is under way"):
        engine.swap_to("b")
    loads.gate.set()
    first.join()
    assert engine.current.checkpoint_id == "a"
    assert engine.swap_to("b").outcome == "swapped"


def test_models_answer_to_their_names(engine: Engine) -> None:
    engine.swap_to("a")
    engine.swap_to("b")
    expected: dict[Any, str] = {None: "b", "tiny": "b", "org/tiny": "b", "tiny@b": "b", "tiny@a": "a"}
    for name, checkpoint_id in expected.items():
        with engine.lease(name) as leased:
            assert leased.checkpoint_id == checkpoint_id
    with (
        pytest.raises(UnknownModelError, match=r"'gpt' is not served here.*org/tiny, tiny .*tiny@b, tiny@a"),
        engine.lease("gpt"),
    ):
        pass


def test_a_rollback_whose_pointer_does_not_move_changes_nothing(engine: Engine) -> None:
    engine.swap_to("a")

    def refuse() -> str:
        raise LookupError("nothing came before")

    with pytest.raises(LookupError):
        engine.roll_back(refuse)
    assert engine.current.checkpoint_id == "a"


def test_on_swap_hears_of_each_live_generation(loads: Loads) -> None:
    heard: list[str] = []
    engine = Engine(loads, on_swap=lambda one: heard.append(one.model))
    engine.start(lambda: generation("x"))
    engine.swap_to("a")
    engine.swap_to("a")
    assert heard == ["tiny@x", "tiny@a"]


def test_a_failure_is_over_in_the_moment_of_the_next_swap(loads: Loads) -> None:
    """Whoever sees the new model sees no failure beside it, though the old model is still being drained."""
    seen: list[tuple[dict[str, Any] | None, str]] = []

    def look(live: Generation) -> None:
        seen.append((served.status()["last_failure"], live.checkpoint_id))

    served = Engine(loads, drain_seconds=0.2, on_swap=look)
    served.swap_to("a")
    loads.broken.add("b")
    with pytest.raises(ValueError, match="b is broken"):
        served.swap_to("b")
    assert served.status()["last_failure"]
    served.swap_to("c")
    assert seen == [(None, "a"), (None, "c")]
