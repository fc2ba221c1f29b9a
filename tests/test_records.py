"""Records: digests that bind, reports that cannot be altered unseen, tables with exactly their schema."""

from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed_assets.records import (
    CORPUS_SCHEMA,
    PAIR_SCHEMA,
    QUERY_SCHEMA,
    Benchmark,
    Pair,
    RecallReport,
    ReportCorruptError,
    SliceReport,
    digest_of,
    digest_of_json,
    embedded_text,
    query_digest,
    table,
)

SLICE = SliceReport(
    name="docstring",
    corpus_size=3,
    query_ids=("a", "b"),
    group_ids=("f", "g"),
    repositories=("shop", "shop"),
    languages=("python", "go"),
    ranks={"base": ((1,), (2, 3)), "candidate": ((1,), (1, 2))},
)
REPORT = RecallReport(
    candidate_id="c1",
    candidate_digest="d1",
    live_id="base",
    live_digest="d0",
    base_model="minilm",
    benchmark_digest="b",
    guard_digest="g",
    pairs_digest="p",
    cutoff=0,
    attempt=1,
    slices=(SLICE,),
    created_at="2026-01-01T00:00:00+00:00",
)


@given(st.lists(st.text()), st.lists(st.text()))
def test_different_parts_have_different_digests(left: list[str], right: list[str]) -> None:
    assert (digest_of(*left) == digest_of(*right)) is (left == right)


def test_a_json_digest_ignores_the_order_of_keys_only() -> None:
    assert digest_of_json({"a": 1, "b": [1, 2]}) == digest_of_json({"b": [1, 2], "a": 1})
    assert digest_of_json([1, 2]) != digest_of_json([2, 1])


def test_a_query_is_the_same_query_in_another_case_and_spacing() -> None:
    assert query_digest("Retry  failed\nwebhooks") == query_digest("retry failed webhooks")
    assert query_digest("retry failed webhook") != query_digest("retry failed webhooks")


def test_a_report_survives_json() -> None:
    assert RecallReport.from_json(REPORT.to_json()) == REPORT


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": 0},
        {"live_digest": "other"},
        {"slices": []},
        {"digest": "0" * 40},
        {"surprise": 1},
    ],
)
def test_an_altered_report_is_found(change: dict[str, object]) -> None:
    with pytest.raises(ReportCorruptError):
        RecallReport.from_json({**REPORT.to_json(), **change})


def test_a_report_with_another_rank_is_another_report() -> None:
    better = replace(SLICE, ranks={**SLICE.ranks, "candidate": ((1,), (1, 1))})
    assert replace(REPORT, slices=(better,)).digest != REPORT.digest


def test_the_embedded_text_has_a_header_without_empty_parts() -> None:
    assert embedded_text(path="a.py", scope="", name="f", code="def f(): ...") == "a.py f\ndef f(): ..."
    assert embedded_text(path="a.py", scope="C", name="f", code="x") == "a.py C f\nx"


def test_a_table_has_exactly_its_schema_even_when_empty() -> None:
    assert dict(table([], PAIR_SCHEMA).schema) == dict(pl.DataFrame(schema=dict(PAIR_SCHEMA)).schema)
    row = Pair(
        pair_id="1", query_id="2", source="docstring", split="train", query="q", positive="p", definition_id="d",
        snippet_id="s", hard_negatives=("n",), repository="r", language="python", group_id="g",
    )  # fmt: skip
    assert table([row], PAIR_SCHEMA)["hard_negatives"].to_list() == [["n"]]


def test_a_benchmark_digest_depends_on_content_and_not_on_order() -> None:
    corpus = pl.DataFrame({name: [["x"], []] if name == "parts" else ["x", "y"] for name in CORPUS_SCHEMA})
    queries = pl.DataFrame(
        {name: [1, 2] if name == "written_at" else ["u", "v"] for name in QUERY_SCHEMA if name != "relevant"}
    ).with_columns(relevant=pl.Series([["x"], ["y", "x"]]))
    digest = Benchmark.digest_for(corpus, queries, 7)
    shuffled = queries.reverse().with_columns(pl.col("relevant").list.reverse())
    assert Benchmark.digest_for(corpus.reverse(), shuffled, 7) == digest
    assert Benchmark.digest_for(corpus, queries.head(1), 7) != digest
    assert Benchmark.digest_for(corpus, queries, 8) != digest
    for name in CORPUS_SCHEMA:
        value = pl.lit(["z"]) if name == "parts" else pl.lit("z")
        assert Benchmark.digest_for(corpus.with_columns(value.alias(name)), queries, 7) != digest
    for name in QUERY_SCHEMA:
        value = pl.lit(["z"]) if name == "relevant" else pl.lit(3) if name == "written_at" else pl.lit("z")
        assert Benchmark.digest_for(corpus, queries.with_columns(value.alias(name)), 7) != digest
