"""Keeps what is served equal to what is wanted. `checkpoint-latest` is the only desired state.

A reload comes over HTTP from whoever moved the pointer; the loop here catches what was missed (the service was down,
or a reload failed for want of memory) and tries a checkpoint that fails again at growing intervals.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from embed_assets.checkpoints.live import BASE, live_model, rollback
from embed_assets.checkpoints.manifest import CheckpointCorruptError
from embed_assets.files import StoreError
from embed_assets.serving.engine import Engine, Swap, SwapInProgressError
from embed_assets.store import Store

RECONCILE_SECONDS = 30.0
MAX_BACKOFF_SECONDS = 900.0

logger = logging.getLogger(__name__)


class NotDesiredError(ValueError):
    """A reload names a checkpoint that `checkpoint-latest` does not point to."""


class Reconciler:
    """Brings the engine to what `checkpoint-latest` says: on request, by rollback, and by itself."""

    def __init__(
        self, engine: Engine, store: Store, *, seconds: float = RECONCILE_SECONDS, observe: Callable[[str], None]
    ) -> None:
        """
        Args:
            seconds: between two looks at the pointer; 0 switches the loop off.
            observe: told the outcome of each swap: swapped, unchanged or failed.
        """
        self._engine = engine
        self._store = store
        self._seconds = seconds
        self._observe = observe
        self.failures = 0
        """Tries of the loop in a row that failed."""

    def desired(self) -> str:
        """Id of the checkpoint that should be live, `base` while none was promoted."""
        live = live_model(self._store)
        return BASE if live is None else live.checkpoint_id

    def reload(self, checkpoint_id: str | None = None) -> Swap:
        """Swaps to what `checkpoint-latest` points to; `checkpoint_id` says what the caller expects that to be.

        Raises:
            NotDesiredError: it points to another one.
            SwapInProgressError, and whatever loading raises.
        """
        desired = self.desired()
        if checkpoint_id is not None and checkpoint_id != desired:
            raise NotDesiredError(
                f"the reload names {checkpoint_id!r}, but checkpoint-latest points to {desired!r}, and nothing else is "
                "ever served; promote or roll back first"
            )
        return self._observed(lambda: self._engine.swap_to(desired))

    def rollback(self) -> Swap:
        """What `embed-assets rollback` does, and the swap in the same breath.

        Raises:
            SwapInProgressError, and whatever `checkpoints.live.rollback` and loading raise.
        """
        return self._observed(lambda: self._engine.roll_back(lambda: rollback(self._store).checkpoint_id))

    def status(self) -> dict[str, Any]:
        """What is wanted, and how the loop fares; a pointer that cannot be read is told and does not hide the rest."""
        try:
            desired, problem = self.desired(), None
        except (StoreError, CheckpointCorruptError) as error:
            desired, problem = None, str(error)
        return {
            "desired": desired,
            "desired_problem": problem,
            "reconcile_seconds": self._seconds,
            "reconcile_failures": self.failures,
        }

    async def follow(self) -> None:
        """The loop; runs until it is cancelled. A failure is logged, shown by status and tried again later."""
        while self._seconds:
            await asyncio.sleep(min(self._seconds * 2**self.failures, max(MAX_BACKOFF_SECONDS, self._seconds)))
            try:
                swap = await asyncio.to_thread(self._reconcile)
            except SwapInProgressError:
                continue
            except Exception as error:  # noqa: BLE001 - the loop outlives every failure of a load
                self.failures = min(self.failures + 1, 16)
                logger.warning("cannot follow checkpoint-latest (try %d): %s", self.failures, error)
            else:
                self.failures = 0
                if swap is not None and swap.outcome == "swapped":
                    logger.info("followed checkpoint-latest to %s", swap.model)

    def _reconcile(self) -> Swap | None:
        if not self._engine.ready or self._engine.current.checkpoint_id == self.desired():
            return None
        return self.reload()

    def _observed(self, swap: Callable[[], Swap]) -> Swap:
        try:
            done = swap()
        except SwapInProgressError:
            raise
        except Exception:
            self._observe("failed")
            raise
        self._observe(done.outcome)
        return done
