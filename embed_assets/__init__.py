"""Fine-tunes a code-embedding model every night on a team's own git repositories.

The folders are the data flow, in order: snippets, pairs, encoder and retrieval, training, evaluation,
checkpoints, serving. `defs` wires them into Dagster assets; `cli` is the command line.
"""

__version__ = "0.1.0"
