"""Golden vectors: what the evaluated model made of a few texts, so that the service can tell whether it is that model.

The file is safetensors: the tensor `vectors`, and `texts` and `kinds` as JSON lists in its metadata.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from embed_assets.evaluation.vectors import Floats, Kind, TextEncoder
from embed_assets.files import write_file

COUNT = 16
"""Of queries, and of passages."""


def write_golden(path: Path, encoder: TextEncoder, queries: pl.DataFrame, corpus: pl.DataFrame) -> None:
    """Embeds a spread of the benchmark's queries and passages with `encoder` and stores texts and vectors."""
    texts: list[str] = []
    kinds: list[str] = []
    vectors: list[Floats] = []
    chosen: tuple[tuple[Kind, list[str]], ...] = (
        ("query", _spread(queries["text"].to_list())),
        ("passage", _spread(corpus["text"].to_list())),
    )
    for kind, some in chosen:
        texts += some
        kinds += [kind] * len(some)
        vectors.append(encoder.encode(some, kind=kind))
    _save(path, texts, kinds, np.concatenate(vectors))


def _save(path: Path, texts: Sequence[str], kinds: Sequence[str], vectors: Floats) -> None:
    from safetensors.numpy import save_file

    metadata = {"texts": json.dumps(list(texts)), "kinds": json.dumps(list(kinds))}
    tensors = {"vectors": np.ascontiguousarray(vectors, dtype=np.float32)}
    write_file(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def _spread(texts: Sequence[str]) -> list[str]:
    """`COUNT` texts of all lengths, the shortest and the longest among them."""
    by_length = sorted(set(texts), key=lambda text: (len(text), text))
    if len(by_length) <= COUNT:
        return by_length
    places = np.linspace(0, len(by_length) - 1, COUNT).round().astype(int)
    return [by_length[place] for place in places]
