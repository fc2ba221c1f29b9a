"""The live embedder: one promoted model behind HTTP, swapped without a restart and without a mixed answer.

`client` and `registration` import no torch: Dagster and the command line load them.
"""
