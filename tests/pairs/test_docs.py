"""Which part of a doc becomes a query, in the languages' own conventions."""

import pytest

from embed_assets.pairs.docs import MOST_WORDS, doc_query

KEPT = [
    (
        "Open the archive and list its members.\n\nLong story about archives.",
        "Open the archive and list its members.",
    ),
    (
        "Wait until the worker answers,\nor the deadline passes.\nArgs:\n    worker: which one",
        "Wait until the worker answers, or the deadline passes.",
    ),
    (
        "Fetches a single row from the table.\n\n## Examples\n\n    iex> fetch(Repo, 1)",
        "Fetches a single row from the table.",
    ),
    (
        "Fetches a single row from the table.\n    iex> fetch(Repo, 1)",
        "Fetches a single row from the table.",
    ),
    (
        "Returns whether {@code json} is {@link Gson#isValid valid} JSON text.\n@param json the text",
        "Returns whether json is Gson isValid valid JSON text.",
    ),
    ("Convert :class:`~flask.Response` into `bytes` **safely** again.", "Convert Response into bytes safely again."),
    (
        "Skips lines matching the [`Glob`](crate::Glob) of ignore files.",
        "Skips lines matching the Glob of ignore files.",
    ),
    (
        "foo(bar, baz) -> int\n\nCount the matching rows inside one table.",
        "Count the matching rows inside one table.",
    ),
    ("# Heading\n\nBuilds the search index from all documents.", "Builds the search index from all documents."),
    ("```\nexample()\n```\nBuilds the search index from all documents.", "Builds the search index from all documents."),
    (
        "<p>Writes the value as compact JSON text.</p>\n<pre>writer.value(1)</pre>",
        "Writes the value as compact JSON text.",
    ),
    (
        "Sorts rows by several columns at once:\n\n- first\n- second",
        "Sorts rows by several columns at once",
    ),
    ("Sorts rows by several given columns\n- first\n- second", "Sorts rows by several given columns"),
    (
        "Adds a file type given as one string. There are two valid formats:\n1. one\n2. two",
        "Adds a file type given as one string.",
    ),
    ("@brief Computes the checksum of every block.", "Computes the checksum of every block."),
    ("计算两个节点之间的最短路径", "计算两个节点之间的最短路径"),
    ("Berechnet den kürzesten Weg zwischen zwei Knoten.", "Berechnet den kürzesten Weg zwischen zwei Knoten."),
    ("Keeps snake_case and __dunder__ words of code.", "Keeps snake_case and dunder words of code."),
]


@pytest.mark.parametrize(("doc", "query"), KEPT)
def test_the_first_paragraph_is_the_query(doc: str, query: str) -> None:
    assert doc_query(doc) == (query, "")


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        ("", "doc_missing"),
        ("   \n ", "doc_missing"),
        ("Returns the value.", "doc_too_short"),
        (">>> add(1, 2)\n3", "doc_too_short"),
        ("Args:\n    x: the first operand of the addition", "doc_too_short"),
        ("See the documentation of the base class", "doc_boilerplate"),
        ("TODO explain this rather long and complicated thing", "doc_boilerplate"),
        ("Copyright (c) 2020 The Authors of this code", "doc_boilerplate"),
        ("{@inheritDoc}", "doc_boilerplate"),
        ("Alias for the other function", "doc_boilerplate"),
        ("@experimental\n`Boundary` is an experimental feature.\nThe API might be changed.", "doc_boilerplate"),
        ("@param first what is added to the second", "doc_too_short"),
    ],
)
def test_a_doc_that_says_nothing_is_refused_with_its_reason(doc: str, reason: str) -> None:
    assert doc_query(doc) == ("", reason)


def test_no_example_call_survives() -> None:
    doc = "Adds two big numbers exactly.\n>>> add_numbers(1, 2)\n3"
    assert "add_numbers" not in doc_query(doc).text


def test_long_paragraphs_end_after_a_sentence() -> None:
    doc = " ".join(f"Sentence number {n} speaks about interesting unrelated matters." for n in range(40))
    text = doc_query(doc).text
    assert len(text.split()) <= MOST_WORDS
    assert text.endswith("matters.")
