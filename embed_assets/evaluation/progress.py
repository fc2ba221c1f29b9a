"""Says how an evaluation goes: a bar on a terminal, a line now and then to whoever else listens."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TextIO

SECONDS_BETWEEN_LINES = 15.0
TERMINAL_VARIABLE = "EMBED_ASSETS_TERMINAL"
"""Names the terminal of the person who started the night, where this process' own output is captured."""


class Progress:
    """Follows an evaluation; use it as a context manager.

    Args:
        say: receives lines.
        terminal: where a bar is drawn; no bar when None.
    """

    def __init__(self, say: Callable[[str], None] | None, terminal: TextIO | None) -> None:
        self._say = say
        self._bar: Any = _bar(terminal) if terminal is not None else None
        self._tasks: dict[str, Any] = {}
        self._spoke_at = time.monotonic()
        self._stack = ExitStack()

    @classmethod
    def for_this_process(cls, say: Callable[[str], None] | None) -> "Progress":
        """A bar on the person's terminal where there is one; else lines, to `say` or to standard error."""
        if sys.stderr.isatty():
            return cls(say, sys.stderr)
        name = os.environ.get(TERMINAL_VARIABLE)
        if not name:
            return cls(say or _to_standard_error, None)
        terminal = open(name, "w", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        progress = cls(say, terminal)
        progress._stack.callback(terminal.close)
        return progress

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._stack.close()

    def observe(self, what: str, done: int, total: int) -> None:
        """Takes how far one stage has come."""
        if self._bar is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total)
            self._bar.update(self._tasks[what], completed=done)
        now = time.monotonic()
        if now - self._spoke_at >= SECONDS_BETWEEN_LINES:
            self._spoke_at = now
            self.line(f"{what}: {done:,} of {total:,}")

    def line(self, text: str) -> None:
        """Passes a line on, if anyone listens."""
        if self._say is not None:
            self._say(text)


def _to_standard_error(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


def _bar(terminal: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description:24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=terminal, force_terminal=True),
    )
