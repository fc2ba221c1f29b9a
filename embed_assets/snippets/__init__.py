"""From repositories to definitions: what a tree holds, cleaned, deduplicated, and parsed only once.

Knows git, packages and syntax trees. Knows nothing of pairs, models or Dagster.
"""
