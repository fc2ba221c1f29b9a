"""What can be found, and what stands for the functions that are long."""

from typing import Any

import polars as pl

from embed_assets.pairs.corpus import MOST_PARTS, corpus_of
from embed_assets.records import CORPUS_SCHEMA, SNIPPET_SCHEMA, digest_of
from embed_assets.snippets.extract import snippet_id_of

LONG = "def long(x):\n" + "".join(f"    x = combine(x, {number})\n" for number in range(200))


def a_row(name: str, code: str, *, path: str = "a.py") -> dict[str, Any]:
    return {
        "definition_id": digest_of(path, "", name),
        "snippet_id": snippet_id_of("python", code),
        "repository": "shop",
        "path": path,
        "language": "python",
        "kind": "function",
        "scope": "",
        "name": name,
        "signature": "",
        "doc": "",
        "code": code,
        "parts": [],
        "start_line": 1,
        "end_line": 2,
        "blob_id": "",
        "is_test": False,
    }


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
