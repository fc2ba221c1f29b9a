"""Says how an evaluation goes: a bar on a terminal, a line now and then to whoever else listens."""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from embed_assets.terminal import terminal

SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Follows an evaluation; use it as a context manager.

    Args:
        say: receives what was found.
        tell: receives a line now and then while it goes on; `say` when not given.
        screen: where a bar is drawn; no bar when None.
    """

    def __init__(
        self, say: Callable[[str], None], screen: TextIO | None, *, tell: Callable[[str], None] | None = None
    ) -> None:
        self.line = say
        self._tell = tell or say
        self._bar: Any = _bar(screen) if screen is not None else None
        self._tasks: dict[str, Any] = {}
        self._spoke_at = time.monotonic()

    @classmethod
    def for_this_process(cls) -> "Progress":
        """A bar where a person looks on, and lines in the log that do not disturb it."""
        log, screen = logging.getLogger("embed_assets.evaluation"), terminal()
        return cls(log.info, screen, tell=log.info if screen is None else log.debug)

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def observe(self, what: str, done: int, total: int) -> None:
        """Takes how far one stage has come."""
        if self._bar is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total)
            self._bar.update(self._tasks[what], completed=done)
        now = time.monotonic()
        if now - self._spoke_at >= SECONDS_BETWEEN_LINES:
            self._spoke_at = now
            self._tell(f"{what}: {done:,} of {total:,}")


def _bar(screen: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=screen, force_terminal=True),
    )
