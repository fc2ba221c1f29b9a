"""The terminal a person looks at, also from a process whose own output is captured."""

import os
import sys
from typing import TextIO

from embed_assets.settings import TERMINAL_VARIABLE


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
