"""What can be found, and what stands for the functions that are long."""

import polars as pl

from embed_assets.pairs.corpus import MOST_PARTS, corpus_of
from embed_assets.records import CORPUS_SCHEMA, SNIPPET_SCHEMA
from tests.pairs.test_calls import a_row

LONG = "def long(x):\n" + "".join(f"    x = combine(x, {number})\n" for number in range(200))


def test_a_long_function_has_its_first_parts_beside_its_text() -> None:
    parts = [f"part {number}" for number in range(5)]
    rows = [a_row("long", LONG) | {"parts": parts}, a_row("short", "def short(): return 1\n", path="b.py")]
    corpus = corpus_of([pl.DataFrame(rows, schema=dict(SNIPPET_SCHEMA))]).table()
    assert dict(corpus.schema) == dict(CORPUS_SCHEMA)
    by_name = {row["name"]: row for row in corpus.iter_rows(named=True)}
    header = by_name["long"]["text"].partition("\n")[0]
    assert by_name["long"]["parts"] == [f"{header}\n{part}" for part in parts[:MOST_PARTS]]
    assert by_name["long"]["text"] == f"{header}\n{LONG}"
    assert by_name["short"]["parts"] == []
