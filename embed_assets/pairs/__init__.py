"""Snippets and history become pairs (query, positive, hard negatives), and the benchmark that judges the model.

Knows git history, the text of commits and docs, and who may learn from what. Knows no model: nothing here imports
torch, and nothing that a model thinks of a pair decides whether it is kept.
"""
