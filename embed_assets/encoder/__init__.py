"""Text to vectors, for all stages: resolve a name, load a model, tokenise, run it, pool, normalise, save it again."""
