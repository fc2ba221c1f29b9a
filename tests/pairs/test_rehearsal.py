"""What is rehearsed: foreign docs that resemble nothing of the night, the same every night, parsed once."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from embed_assets.pairs import rehearsal
from embed_assets.pairs.build import build_pairs
from embed_assets.pairs.corpus import corpus_of
from embed_assets.pairs.guard import documented, parsed_once
from embed_assets.pairs.rehearsal import TEXT_LENGTH, build_rehearsal, installed_packages
from embed_assets.pairs.separation import Sketches
from embed_assets.pairs.sources import Proposal
from embed_assets.records import REHEARSAL_SCHEMA, query_digest
from embed_assets.settings import Settings
from embed_assets.store import Store
from tests.evaluation.made_store import make_benchmark
from tests.pairs.shop import Shop, settings_for
from tests.pairs.written_history import WrittenHistory

pytestmark = pytest.mark.usefixtures("small_guard")


def test_every_package_brings_docs_and_the_same_ones_again(tmp_path: Path) -> None:
    rows = build_rehearsal([], [], Sketches(), tmp_path)
    assert dict(rows.schema) == dict(REHEARSAL_SCHEMA) and rows.height > 100
    assert {text.split("/")[0] for text in rows["text"].to_list()} == {name for name, _ in installed_packages()}
    assert rows["query"].n_unique() == rows.height
    assert rows.equals(build_rehearsal([], [], Sketches(), tmp_path))


def test_what_resembles_the_night_is_not_rehearsed(tmp_path: Path) -> None:
    name, number = installed_packages()[0]
    function, text = documented(corpus_of([rehearsal._functions(name, number, tmp_path)]), 1)[0]
    asked = Proposal(source="docstring", split="test", query=text, answers=(), repository="r", group_id="g")
    answered = Proposal(
        source="commit", split="train", query="tell parcels apart", answers=(function,), repository="r", group_id="g"
    )
    free = build_rehearsal([], [], Sketches(), tmp_path)
    assert query_digest(text) in {query_digest(query) for query in free["query"].to_list()}
    for proposal in (asked, answered):
        kept = build_rehearsal([proposal], [], Sketches(), tmp_path)
        assert function.text[:TEXT_LENGTH] not in kept["text"].to_list()
        assert kept.height >= free.height - 3


def test_a_package_that_is_learnt_from_is_left_out(tmp_path: Path) -> None:
    rows = build_rehearsal([], [], Sketches(), tmp_path, left_out={"networkx"})
    assert not any(text.startswith("networkx/") for text in rows["text"].to_list())


def test_what_a_judge_asks_is_not_rehearsed(tmp_path: Path) -> None:
    free = build_rehearsal([], [], Sketches(), tmp_path)
    asked = free["query"].to_list()[0]
    judge = make_benchmark("external", 3)
    judge = replace(judge, queries=judge.queries.with_columns(text=pl.lit(asked)))
    kept = build_rehearsal([], [judge], Sketches(), tmp_path)
    assert asked not in kept["query"].to_list() and kept.height >= free.height - 3


def test_a_damaged_memory_of_a_package_is_parsed_again_and_one_without_source_brings_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, table = tmp_path / "memory.parquet", pl.DataFrame({"code": ["pass", "raise"]})
    assert parsed_once(file, lambda: table).equals(table)
    assert parsed_once(file, lambda: pl.DataFrame()).equals(table)
    file.write_bytes(file.read_bytes()[:-9])
    assert parsed_once(file, lambda: table.reverse()).equals(table.reverse())
    assert rehearsal._functions("no-such-package", "1", tmp_path).is_empty()
    assert "not rehearsed: package:no-such-package" in caplog.text


def test_nothing_the_guard_asks_is_rehearsed(written: WrittenHistory, store: Store) -> None:
    shop = Shop(written)
    shop.go_on(60)
    build_pairs(settings_for(shop.written.path), store)
    rehearsed = pl.read_parquet(store.pairs_rehearsal)
    guard = pl.read_parquet(store.guard_benchmark / "queries.parquet")
    judged = pl.read_parquet(store.current_benchmark / "queries.parquet")
    asked = {query_digest(text) for table in (guard, judged) for text in table["text"].to_list()}
    assert rehearsed.height > 100
    assert not asked & {query_digest(text) for text in rehearsed["query"].to_list()}


def test_docs_alone_need_no_rehearsal_unless_a_weight_is_set_and_zero_wants_none(
    written: WrittenHistory, store: Store
) -> None:
    shop = Shop(written)
    shop.go_on(60)
    settings = settings_for(shop.written.path)
    off = settings.model_dump() | {"training": {"rehearsal_weight": 0}}
    build_pairs(Settings.model_validate(off), store)
    assert pl.read_parquet(store.pairs_rehearsal).height == 0
    build_pairs(settings, store)
    assert pl.read_parquet(store.pairs_rehearsal).height > 100
    docs = settings_for(shop.written.path, sources={"docstring": 1.0, "commit": 0.0})
    build_pairs(docs, store)
    assert pl.read_parquet(store.pairs_rehearsal).height == 0
    build_pairs(Settings.model_validate(docs.model_dump() | {"training": {"rehearsal_weight": 0.5}}), store)
    assert pl.read_parquet(store.pairs_rehearsal).height > 100


def test_a_clone_of_a_package_is_not_rehearsed_and_where_nothing_is_left_the_night_says_so(
    written: WrittenHistory, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "PACKAGES", ("networkx",))
    shop = Shop(written)
    shop.go_on(60)
    assert not [note for note in build_pairs(settings_for(shop.written.path), store).notes if "rehearsed" in note]
    assert pl.read_parquet(store.pairs_rehearsal).height > 20
    clone = {"source": str(shop.written.path), "name": "networkx"}
    settings = Settings.model_validate(settings_for(shop.written.path).model_dump() | {"repositories": [clone]})
    notes = build_pairs(settings, store).notes
    assert pl.read_parquet(store.pairs_rehearsal).height == 0
    assert any(note.startswith("nothing is rehearsed: no other source is installed of ") for note in notes)
