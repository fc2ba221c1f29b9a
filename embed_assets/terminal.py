"""The terminal a person looks at, also from a process whose own output is captured."""

import os
import sys
from typing import TextIO

TERMINAL_VARIABLE = "EMBED_ASSETS_TERMINAL"
"""Device of the terminal that the parent runs on, such as /dev/pts/3; set by the command line."""


def terminal() -> TextIO | None:
    """Where a progress bar can be drawn: standard error, or the parent's terminal; None when nobody looks on."""
    if sys.stderr.isatty():
        return sys.stderr
    device = os.environ.get(TERMINAL_VARIABLE)
    if not device:
        return None
    try:
        return open(device, "w", encoding="utf-8")
    except OSError:
        return None
