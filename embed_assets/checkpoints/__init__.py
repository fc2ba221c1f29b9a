"""Candidates that passed the gate become immutable checkpoints, and one pointer says which is live.

Imports no torch: Dagster's daemon, the command line and the service load it.
"""
