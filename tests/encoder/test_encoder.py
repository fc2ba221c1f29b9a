"""The real MiniLM against sentence-transformers, and what callers rely on."""

import threading
import warnings

import numpy as np
import pytest

from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.resolve import resolve

TEXTS = [
    "where do we retry failed webhooks",
    "def retry(webhook):\n    for attempt in range(3):\n        if post(webhook): return True",
    "",
    "über straße 漢字 🙂",
    "x = 1\n" * 300,
]


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return load_encoder(resolve("minilm").path, device="cpu")


def test_the_real_model_gives_what_sentence_transformers_gives(minilm: Encoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        expected = SentenceTransformer(str(minilm.path), device="cpu").encode(TEXTS)
    vectors = minilm.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), 384)
    assert (vectors * expected).sum(axis=1).min() > 0.99999
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5


def test_order_is_kept_and_progress_counts_every_text(minilm: Encoder) -> None:
    counted: list[int] = []
    together = minilm.encode(TEXTS, batch_tokens=64, progress=counted.append)
    alone = np.concatenate([minilm.encode([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5
    assert sum(counted) == len(TEXTS)
    assert minilm.encode([]).shape == (0, 384)


def test_threads_may_encode_at_once(minilm: Encoder) -> None:
    expected = minilm.encode(TEXTS)
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(minilm.encode(TEXTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.abs(result - expected).max() < 1e-5 for result in results)


def test_a_document_that_is_read_whole_needs_no_parts(minilm: Encoder) -> None:
    short = minilm.encode_documents(TEXTS[:3], [["one", "two"], [], []])
    assert np.abs(short - minilm.encode(TEXTS[:3])).max() < 1e-6
    assert minilm.encode_documents([], []).shape == (0, 384)


def test_a_document_that_would_be_cut_is_the_mean_of_its_parts(minilm: Encoder) -> None:
    counted: list[int] = []
    long, parts = "x = 1\n" * 300, [["def first(): pass", "y = 2", "z = 3"], [], ["alone"], []]
    texts = [long, "short", f"{long} more", f"{long} without"]
    vectors = minilm.encode_documents(texts, parts, progress=counted.append)
    mean = minilm.encode(parts[0]).mean(axis=0)
    assert np.abs(vectors[0] - mean / np.linalg.norm(mean)).max() < 1e-5
    assert np.abs(vectors[1:] - minilm.encode(["short", "alone", texts[3]])).max() < 1e-5
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    assert sum(counted) == len(texts)
