"""The engine: which generation answers, and how another takes its place. It knows neither HTTP nor files.

One reference says what is live. A request leases the generation it finds there and keeps it to its end, so that it is
answered by exactly one model also when a swap falls in between. The previous generation stays loaded for an instant
rollback. Swaps are serialised: a second one meanwhile is refused and not queued, since its caller knows better than
the engine whether it is still wanted.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from embed_assets.serving.generation import Generation

logger = logging.getLogger(__name__)


class NotReadyError(RuntimeError):
    """No generation is loaded yet."""


class UnknownModelError(ValueError):
    """A request names a model that is not served."""


class SwapInProgressError(RuntimeError):
    """Another reload or rollback is under way."""


@dataclass(frozen=True, kw_only=True)
class Swap:
    """What a reload or rollback did."""

    outcome: str
    """`swapped`, or `unchanged` when that generation was live already."""
    model: str
    checkpoint_id: str
    digest: str
    space_id: str
    previous: str | None
    """The model that answered before, still loaded."""
    load_seconds: float
    """0 when the generation was at hand."""
    drained: bool
    """Whether the requests of the previous model all ended within the drain time; none is ever cut off."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(eq=False)
class _Slot:
    generation: Generation
    in_flight: int = 0


class Engine:
    """Holds the live generation, the previous one, and the count of requests each is answering."""

    def __init__(
        self,
        load: Callable[[str], Generation],
        *,
        drain_seconds: float = 30.0,
        on_swap: Callable[[Generation], None] | None = None,
    ) -> None:
        """
        Args:
            load: gives the generation of a checkpoint id (or `base`), or raises.
            drain_seconds: how long a swap waits for the requests of the replaced model.
            on_swap: told of each generation right after it became live.
        """
        self._load = load
        self._drain_seconds = drain_seconds
        self._on_swap = on_swap
        self._current: _Slot | None = None
        self._previous: _Slot | None = None
        self._counted = threading.Condition()
        self._swap = threading.Lock()
        self._swapping_to = ""
        self.last_failure: dict[str, str] | None = None

    @property
    def current(self) -> Generation:
        """
        Raises:
            NotReadyError: nothing is loaded yet.
        """
        slot = self._current
        if slot is None:
            raise NotReadyError("no model is loaded yet; try again shortly")
        return slot.generation

    @property
    def ready(self) -> bool:
        return self._current is not None

    def generations(self) -> list[Generation]:
        """Those loaded: the live one first, then the one at hand for a rollback."""
        with self._counted:
            return [slot.generation for slot in (self._current, self._previous) if slot is not None]

    @contextmanager
    def lease(self, model: str | None = None) -> Iterator[Generation]:
        """The generation that answers a request, counted as in flight until the block ends.

        Args:
            model: a served name or alias, which means the live generation, or `name@id` of a loaded one.

        Raises:
            NotReadyError: nothing is loaded yet.
            UnknownModelError: `model` is none of the served ones.
        """
        with self._counted:
            slot = self._slot_of(model)
            slot.in_flight += 1
        try:
            yield slot.generation
        finally:
            with self._counted:
                slot.in_flight -= 1
                self._counted.notify_all()

    def start(self, load: Callable[[], Generation]) -> None:
        """Makes a generation live that is no checkpoint and not the configured base model."""
        with self.swapping("the first model"):
            generation = load()
            with self._counted:
                self._current = _Slot(generation)
            self._tell(generation)

    def swap_to(self, checkpoint_id: str) -> Swap:
        """Makes a checkpoint the live generation, from hand or from its files; a failure changes nothing.

        Raises:
            SwapInProgressError: another swap is under way.
            Exception: whatever `load` raises.
        """
        with self.swapping(checkpoint_id):
            return self._swap_to(checkpoint_id)

    def roll_back(self, move_pointer: Callable[[], str]) -> Swap:
        """Moves the pointer, then swaps to the checkpoint it then names; other swaps are held off from before the move.

        Raises:
            SwapInProgressError: another swap is under way.
            Exception: whatever `move_pointer` or `load` raises.
        """
        with self.swapping("the previous checkpoint"):
            return self._swap_to(move_pointer())

    @contextmanager
    def swapping(self, checkpoint_id: str) -> Iterator[None]:
        """Holds off all other swaps, and records what made this one fail."""
        if not self._swap.acquire(blocking=False):
            raise SwapInProgressError(f"a swap to {self._swapping_to} is under way; try again when it has ended")
        self._swapping_to = checkpoint_id
        try:
            yield
            self.last_failure = None
        except Exception as error:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            self.last_failure = {"checkpoint_id": checkpoint_id, "error": str(error), "at": at}
            logger.warning("swap to %s failed, %s stays live: %s", checkpoint_id, self._live_name(), error)
            raise
        finally:
            self._swapping_to = ""
            self._swap.release()

    def status(self) -> dict[str, Any]:
        """What is loaded, what each is answering, and what failed last."""
        with self._counted:
            slots = {"live": self._current, "previous": self._previous}
            described = {
                role: {**slot.generation.describe(), "in_flight": slot.in_flight} if slot is not None else None
                for role, slot in slots.items()
            }
            return {**described, "swapping_to": self._swapping_to or None, "last_failure": self.last_failure}

    def _swap_to(self, checkpoint_id: str) -> Swap:
        started = time.monotonic()
        old = self._current
        if old is not None and old.generation.checkpoint_id == checkpoint_id:
            return self._report("unchanged", old, self._previous, 0.0, True, started)
        slot = self._at_hand(checkpoint_id)
        load_seconds = 0.0
        if slot is None:
            slot = _Slot(self._load(checkpoint_id))
            load_seconds = time.monotonic() - started
        with self._counted:  # what failed before is over in the same moment, for whoever asks
            self._current, self._previous, self.last_failure = slot, old, None
        self._tell(slot.generation)
        return self._report("swapped", slot, old, load_seconds, self._drain(old), started)

    def _tell(self, generation: Generation) -> None:
        logger.info("%s is live", generation.model)
        if self._on_swap is not None:
            self._on_swap(generation)

    def _at_hand(self, checkpoint_id: str) -> _Slot | None:
        slot = self._previous
        return slot if slot is not None and slot.generation.checkpoint_id == checkpoint_id else None

    def _drain(self, slot: _Slot | None) -> bool:
        """Waits until no request is left on `slot`; those that take longer keep their model to their own end."""
        if slot is None:
            return True
        with self._counted:
            return self._counted.wait_for(lambda: slot.in_flight == 0, timeout=self._drain_seconds)

    def _slot_of(self, model: str | None) -> _Slot:
        if self._current is None:
            raise NotReadyError("no model is loaded yet; try again shortly")
        live = self._current.generation
        if model is None or model == live.model or model in live.aliases:
            return self._current
        if self._previous is not None and model == self._previous.generation.model:
            return self._previous
        loaded = [slot.generation.model for slot in (self._current, self._previous) if slot is not None]
        raise UnknownModelError(
            f"the model {model!r} is not served here; served are {', '.join(sorted(live.aliases))} (whatever is live) "
            f"and exactly {', '.join(loaded)}"
        )

    def _live_name(self) -> str:
        return self._current.generation.model if self._current is not None else "nothing"

    def _report(
        self, outcome: str, live: _Slot, previous: _Slot | None, load_seconds: float, drained: bool, started: float
    ) -> Swap:
        return Swap(
            outcome=outcome,
            model=live.generation.model,
            checkpoint_id=live.generation.checkpoint_id,
            digest=live.generation.digest,
            space_id=live.generation.space_id,
            previous=previous.generation.model if previous is not None else None,
            load_seconds=round(load_seconds, 3),
            drained=drained,
            seconds=round(time.monotonic() - started, 3),
        )
