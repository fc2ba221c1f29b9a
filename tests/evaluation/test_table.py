"""Tables, examples and the plot of a report."""

import dataclasses

from embed_assets.evaluation.plot import recall_plot
from embed_assets.evaluation.table import (
    improved_examples,
    recall_rows,
    recall_table,
    rows_by_language,
    rows_by_repository,
    worst_losses,
)
from embed_assets.records import RecallReport
from tests.evaluation.made_reports import make_report, one_slice
from tests.evaluation.made_store import make_benchmark

BENCHMARK = make_benchmark("team", 4)


def report(live_id: str = "base") -> RecallReport:
    part = one_slice(
        "docstring", [1, 2, 30, 4], [1, 5, 3, 2], base=[1, 2, 30, 40],
        query_ids=tuple(BENCHMARK.queries["query_id"].to_list()), languages=("python", "python", "rust", "rust"),
        repositories=("shop", "bank", "bank", "bank"), groups=["a", "b", "c", "d"],
    )  # fmt: skip
    return make_report(part, dataclasses.replace(part, name="docstring_masked"), live_id=live_id)


def test_rows_hold_the_metrics_of_every_system() -> None:
    rows = {(row.slice, row.system): row for row in recall_rows(report(live_id="earlier"))}
    row = rows["docstring", "live"]
    assert (row.queries, row.recall_at_1, row.recall_at_10) == (4, 0.25, 0.75)
    assert row.mrr_at_10 == (1 + 1 / 2 + 0 + 1 / 4) / 4
    assert rows["docstring", "base"].recall_at_10 == 0.5


def test_the_table_shows_live_only_where_it_is_not_the_base() -> None:
    assert "| live " not in recall_table(report())
    table = recall_table(report(live_id="earlier"))
    assert "| live " in table
    assert "| docstring (4 on 1,000)" in table
    assert "50.8% (+13.3)" in table  # (1 + 1/5 + 1/3 + 1/2) / 4 against the base's (1 + 1/2) / 4
    assert len({len(line) for line in table.splitlines()}) == 1


def test_groups_add_up() -> None:
    by_language = {(row.slice, row.group, row.system): row for row in rows_by_language(report())}
    assert by_language["docstring", "rust", "candidate"].queries == 2
    assert by_language["docstring", "rust", "candidate"].mrr_at_10 == (1 / 3 + 1 / 2) / 2
    by_repository = [row for row in rows_by_repository(report()) if row.system == "live" and row.slice == "docstring"]
    assert [(row.group, row.queries) for row in by_repository] == [("bank", 3), ("shop", 1)]


def test_examples_are_the_largest_gains_and_losses_with_their_ranks() -> None:
    gained = improved_examples(report(), BENCHMARK, 10)
    assert [(example.rank_before, example.rank_after) for example in gained] == [(30, 3), (4, 2)]
    assert gained[0].query == "what function_2 does with word2"
    assert gained[0].answer == "team.py function_2"
    lost = worst_losses(report(), BENCHMARK, 10)
    assert [(example.rank_before, example.rank_after) for example in lost] == [(2, 5)]
    assert improved_examples(report(), BENCHMARK, 1) == gained[:1]


def test_the_plot_is_a_picture_and_leaves_pyplot_alone() -> None:
    import sys

    picture = recall_plot(report())
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    assert recall_plot(make_report()).startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
