"""Training and encoding on one GPU against sentence-transformers, both sides in one run: `python -m benchmarks.gpu`."""
