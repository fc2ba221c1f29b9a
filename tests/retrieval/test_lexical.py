"""Stems of the words that code is asked for with, and what counts of a document."""

import doctest

import numpy as np
import pytest

from embed_assets.records import embedded_text
from embed_assets.retrieval import lexical
from embed_assets.retrieval.bm25 import BM25
from embed_assets.retrieval.lexical import document_terms, lexical_index, stem, terms


@pytest.mark.parametrize(
    "family",
    [
        ("cache", "caches", "cached", "caching"),
        ("stop", "stops", "stopped", "stopping"),
        ("retry", "retries", "retried", "retrying"),
        ("pass", "passed", "passing"),
        ("header", "headers"),
        ("webhook", "webhooks"),
    ],
)
def test_forms_of_one_word_share_a_stem(family: tuple[str, ...]) -> None:
    assert len({stem(word) for word in family}) == 1


@pytest.mark.parametrize("word", ["red", "sing", "status", "class", "utf8", "größes", "最短", "is", "bring", "string"])
def test_what_is_no_ending_stays(word: str) -> None:
    assert stem(word) == word


def test_the_examples_in_the_docs_hold() -> None:
    assert doctest.testmod(lexical).failed == 0


def test_words_without_content_find_nothing() -> None:
    assert terms("the use of it is for that") == []
    index = lexical_index(["a.py run\nthe use of it", "b.py stop\nnothing else"])
    np.testing.assert_array_equal(index.scores(["the use of it"]), [[0, 0]])


def test_the_header_counts_twice() -> None:
    text = embedded_text(path="hooks.py", scope="Queue", name="retry", code="def retry(): send()")
    assert document_terms(text).count(stem("queue")) == 2
    assert document_terms(text).count("send") == 1
    assert document_terms(text).count("retry") == 3
    named, used = lexical_index(["a.py - parse\nx y z w", "b.py - other\nparse y z w"]).scores(["parse"])[0]
    assert named > used > 0


def test_other_forms_of_a_word_are_found_and_long_functions_suffer_less() -> None:
    documents = ["one.py send\nretry webhooks", "two.py send\nretry webhooks " + "filler " * 40]
    query = ["retried a webhook"]
    assert (BM25(documents).scores(query) == 0).all()
    short, long = lexical_index(documents).scores(query)[0]
    assert short > long > 0
    plain_short, plain_long = BM25(documents).scores(["retry webhooks"])[0]
    assert long / short > plain_long / plain_short
