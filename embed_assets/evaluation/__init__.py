"""Candidate models become reports, and reports become verdicts. Knows nothing of training."""
