"""Each kind of leak is found; the join is exact; what a model learnt on earlier nights is held against it."""

import random

import polars as pl
import pytest

from embed_assets.pairs.leakage import NEAR, Leak, find_leaks, lineage_leaks, near_join, summary
from embed_assets.records import CORPUS_SCHEMA, PAIR_SCHEMA, QUERY_SCHEMA, Benchmark, query_digest

BODY = "\n".join(f"    total_{number} = compute({number})" for number in range(12))
JUDGED = f"shop.py judged\ndef judged(value):\n{BODY}\n    return value"


def a_benchmark(query: str = "retry failed webhooks after a timeout", cutoff: int = 0) -> Benchmark:
    corpus = pl.DataFrame(
        [
            dict.fromkeys(CORPUS_SCHEMA, "") | {"document_id": "judged", "text": JUDGED, "parts": []},
            dict.fromkeys(CORPUS_SCHEMA, "") | {"document_id": "unasked", "text": "x y\ncode()", "parts": []},
        ],
        schema=dict(CORPUS_SCHEMA),
    )
    row = dict.fromkeys(QUERY_SCHEMA, "") | {
        "query_id": "q",
        "text": query,
        "written_at": 0,
        "relevant": ["judged"],
    }
    queries = pl.DataFrame([row], schema=dict(QUERY_SCHEMA))
    digest = Benchmark.digest_for(corpus, queries, cutoff)
    return Benchmark(name="test", digest=digest, cutoff=cutoff, corpus=corpus, queries=queries)


def a_pair(query: str, positive: str, definition_id: str = "learnt", split: str = "train") -> pl.DataFrame:
    row = dict.fromkeys(PAIR_SCHEMA, "") | {
        "pair_id": "p",
        "query": query,
        "positive": positive,
        "definition_id": definition_id,
        "split": split,
        "hard_negatives": [],
        "weight": 1.0,
        "written_at": 0,
    }
    return pl.DataFrame([row], schema=dict(PAIR_SCHEMA))


OTHER_QUERY, OTHER_CODE = "count the rows of a table", "a.py other\ndef other():\n    return 1"


def test_apart_is_apart() -> None:
    assert find_leaks(a_pair(OTHER_QUERY, OTHER_CODE), a_benchmark(), {}) == []


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize(
    ("query", "positive", "definition_id", "kind"),
    [
        ("Retry failed webhooks  after a timeout", OTHER_CODE, "learnt", "query"),
        ("retry failed webhooks after a timeout again", OTHER_CODE, "learnt", "near_query"),
        (OTHER_QUERY, OTHER_CODE, "judged", "definition"),
        (OTHER_QUERY, f"lib/copy.py copied\n{JUDGED.partition(chr(10))[2]}\n", "learnt", "content"),
        (OTHER_QUERY, JUDGED.replace("return value", "return value + 1"), "learnt", "near_code"),
    ],
)
def test_every_kind_of_leak_is_found(query: str, positive: str, definition_id: str, kind: str, split: str) -> None:
    leaks = find_leaks(a_pair(query, positive, definition_id, split), a_benchmark(), {})
    assert summary(leaks) == {kind: 1}
    [leak] = leaks
    assert (leak.query_id, leak.pair_id, leak.benchmark) == ("q", "p", "test")
    assert leak.similarity == 1 or NEAR <= leak.similarity < 1
    assert kind in leak.line and leak.benchmark in leak.line


def test_the_rows_of_the_test_side_are_no_leak() -> None:
    assert (
        find_leaks(a_pair("retry failed webhooks after a timeout", JUDGED, "judged", "test"), a_benchmark(), {}) == []
    )


def test_the_join_is_exact() -> None:
    chance = random.Random(3)
    tokens = [(str(number),) for number in range(40)]
    for _ in range(30):
        left = [frozenset(chance.sample(tokens, chance.randint(1, 20))) for _ in range(15)]
        right = [frozenset(one for one in chosen if chance.random() > 0.08) for chosen in left] + [frozenset()]
        brute = {
            (i, j) for i, a in enumerate(left) for j, b in enumerate(right) if b and len(a & b) / len(a | b) >= NEAR
        }
        assert {(i, j) for i, j, _ in near_join(left, right)} == brute


def test_a_lineage_that_learnt_a_test_query_or_came_later_is_named() -> None:
    benchmark = a_benchmark(cutoff=100)
    assert lineage_leaks(benchmark, query_digests=[query_digest("something else")], cutoff=100) == []
    learnt = [query_digest("RETRY failed webhooks after a  timeout")]
    assert [leak.kind for leak in lineage_leaks(benchmark, query_digests=learnt, cutoff=50)] == ["lineage"]
    assert [leak.kind for leak in lineage_leaks(benchmark, query_digests=[], cutoff=101)] == ["cutoff"]


def test_long_texts_are_shortened_in_messages() -> None:
    leaks: list[Leak] = find_leaks(a_pair(OTHER_QUERY, JUDGED * 5, "judged"), a_benchmark(), {})
    assert all(len(leak.line) < 500 for leak in leaks)
