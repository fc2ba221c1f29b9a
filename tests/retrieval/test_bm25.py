"""The tokeniser on identifiers, and scores against BM25's formula written out."""

import logging
import math

import numpy as np
import pytest

from embed_assets.retrieval.bm25 import BM25, tokenize


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("retry_failed_webhooks", ["retry_failed_webhooks", "retry", "failed", "webhooks"]),
        ("parseHTTPHeader", ["parsehttpheader", "parse", "http", "header"]),
        ("decode_utf8", ["decode_utf8", "decode", "utf", "8"]),
        ("HTTPServer2", ["httpserver2", "http", "server", "2"]),
        ("plain words here", ["plain", "words", "here"]),
        ("a.b(c)", ["a", "b", "c"]),
        ("__init__", ["__init__", "init"]),
        ("größe", ["größe"]),
        ("最短路径 path", ["最短", "短路", "路径", "path"]),
        ("", []),
        ("+-*/", []),
    ],
)
def test_identifiers_count_whole_and_in_parts(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


def test_scores_follow_the_formula() -> None:
    documents = ["red red blue", "blue green", "green green green white"]
    lengths, average = [3, 2, 4], 3.0
    scores = BM25(documents).scores(["red blue", "unknown"])

    def term(frequency: int, holding: int, length: int) -> float:
        idf = math.log(1 + (3 - holding + 0.5) / (holding + 0.5))
        return idf * frequency / (frequency + 1.5 * (1 - 0.75 + 0.75 * length / average))

    expected = [term(2, 1, lengths[0]) + term(1, 2, lengths[0]), term(1, 2, lengths[1]), 0.0]
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(scores[1], [0, 0, 0])


def test_blocks_together_are_the_whole() -> None:
    index = BM25(["one two", "two three", "four"])
    queries = ["one", "two", "three four", ""]
    blocks = list(index.score_blocks(queries, block=3))
    assert [start for start, _ in blocks] == [0, 3]
    np.testing.assert_array_equal(np.concatenate([scores for _, scores in blocks]), index.scores(queries))


def test_a_corpus_without_words_scores_zero() -> None:
    assert not BM25(["", "++"]).scores(["anything"]).any()


def test_indexing_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """bm25s sets its own logger to DEBUG, which would fill the night's log."""
    with caplog.at_level(logging.DEBUG):
        BM25(["retry the webhook", "parse the header"])
    assert caplog.records == []
