"""The command line: `embed-assets COMMAND`. Each file holds the commands of one noun; `app.py` is the tree.

Exit codes: 0 done (for `run`: promoted, or unchanged), 1 an error, 2 a mistake in the command, the settings or the
environment, 3 refused by the gate.
"""

from embed_assets.cli.app import main

__all__ = ["main"]
