"""What a night's pairs show in the UI: the same names every night, and both sides of a leak."""

from dataclasses import replace
from pathlib import Path

import dagster as dg

from embed_assets.defs.metadata import of_leaks, of_pairs
from embed_assets.pairs.leakage import Leak
from embed_assets.pairs.manifest import PairsManifest
from embed_assets.store import Store

MANIFEST = PairsManifest(
    cutoff=1_700_000_000,
    rows=30,
    by_split={"train": 20, "validation": 4, "test": 6},
    by_source={"commit": 15, "docstring": 9},
    by_language={"python": 20, "rust": 4},
    by_repository={"shop": 24},
    by_source_and_language={"commit": {"python": 11, "rust": 4}, "docstring": {"python": 9}},
    by_source_and_split={"commit": {"train": 12, "validation": 3, "test": 5}, "docstring": {"train": 8, "test": 1}},
    test_queries={"commit": 5, "docstring": 1},
    corpus=100,
    duplicates=7,
    guard_queries=1_000,
    guard_corpus=2_000,
    dropped={"commit_merge": 4, "leaks_into_test": 3},
    failed={},
    notes=(),
    examples=(
        {"source": "commit", "repository": "shop", "query": "retry | again", "positive": "a.py f\ndef f(): ..."},
    ),
    pairs_digest="p",
    benchmark_digest="b",
    guard_digest="g",
    inputs_digest="i",
    provable_gain=0.2,
    seconds=1.5,
)


def numbers(manifest: PairsManifest) -> set[str]:
    found = of_pairs(manifest, Store(Path("data")))
    return {name for name, value in found.items() if isinstance(value, int | float)}


def test_what_is_plotted_has_the_same_name_on_a_night_with_nothing_of_it() -> None:
    empty = replace(MANIFEST, by_split={"train": 1}, test_queries={}, dropped={}, by_source_and_split={}, duplicates=0)
    assert numbers(empty) == numbers(MANIFEST)
    assert {"rows/train", "rows/validation", "rows/test", "test_queries/commit", "dropped_rows"} <= numbers(MANIFEST)


def markdown(value: object) -> str:
    assert isinstance(value, dg.MarkdownMetadataValue)
    return str(value.value)


def test_rows_are_shown_by_source_language_and_side_with_examples() -> None:
    found = of_pairs(MANIFEST, Store(Path("data")))
    assert "| commit | 12 | 3 | 5 |" in markdown(found["by_source"])
    assert "| commit | 11 | 4 |" in markdown(found["by_language"])
    assert "| docstring | 9 | 0 |" in markdown(found["by_language"])
    assert "| leaks_into_test | 3 |" in markdown(found["dropped"])
    assert r"| commit | shop | retry \| again | a.py f | def f(): ... |" in markdown(found["examples"])
    assert found["dropped_rows"] == 7 and found["duplicates"] == 7


def test_a_leak_is_shown_with_both_sides() -> None:
    leak = Leak(
        kind="near_query",
        benchmark="test",
        query_id="q",
        pair_id="p",
        similarity=0.913,
        learnt="retry the hook now",
        held_out="retry the hook",
    )
    found = of_leaks([leak, replace(leak, kind="definition")])
    assert found["leaks"] == 2
    assert "| definition | 1 |" in markdown(found["by_kind"])
    assert "| near_query | 0.91 | test | retry the hook now | retry the hook |" in markdown(found["examples"])
    assert of_leaks([])["leaks"] == 0
