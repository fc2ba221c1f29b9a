"""Rows become batches that keep the in-batch rule, and files that cannot be used say why."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed_assets.records import REHEARSAL_SCHEMA
from embed_assets.training.data import TrainingData, epoch_batches, make_batch, prepare, read_beside, read_pairs
from embed_assets.training.errors import TrainingError
from tests.training.made_pairs import pairs_table, tiny_data


def made_of(queries: list[int], positives: list[int]) -> TrainingData:
    """Data without texts: row i asks query i of `queries`, its positive has content i of `positives`."""
    rows, passages = len(queries), max(positives) + 1
    return TrainingData(
        query_texts=[f"query {number}" for number in range(max(queries) + 1)],
        passage_texts=[f"passage {number}" for number in range(passages)],
        query_tokens=[[1]] * (max(queries) + 1),
        passage_tokens=[[number] for number in range(passages)],
        queries=np.array(queries),
        positives=np.array(positives),
        negatives=np.full((rows, 1), -1),
        query_ids=np.array(queries),
        contents=np.arange(passages),
        definitions=np.full(passages, -1),
        weights=np.ones(rows, dtype=np.float32),
        truncated=0,
    )


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=2, max_size=80), st.integers(2, 16))
def test_an_epoch_has_every_row_once_in_batches_of_like_size(rows: list[tuple[int, int]], size: int) -> None:
    data = made_of([query for query, _ in rows], [positive for _, positive in rows])
    batches = epoch_batches(data, size, seed=1, epoch=0)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(rows)))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert max(sizes) <= max(size, 3)


def test_rows_of_one_query_or_one_positive_are_kept_apart_where_that_is_possible() -> None:
    """Every query and every positive occurs twice: there is room, so no batch holds two that belong together."""
    data = made_of([number // 2 for number in range(64)], [(number // 2 + 7) % 32 for number in range(64)])
    for epoch in range(5):
        for batch in epoch_batches(data, 8, seed=3, epoch=epoch):
            assert len(set(data.queries[batch].tolist())) == len(batch)
            assert len(set(data.positives[batch].tolist())) == len(batch)


def test_where_it_is_not_possible_they_are_masked() -> None:
    batch = make_batch(made_of([0, 0, 1], [0, 1, 2]), np.array([0, 1, 2]))
    assert batch.masked.tolist() == [[False, True, False], [True, False, False], [False, False, False]]


def test_an_answer_in_another_batch_is_masked_too() -> None:
    """Query 0 is answered by passages 0 and 1; here are its row with 0, and query 1's, whose positive is 1 too."""
    data = made_of([0, 0, 1, 2], [0, 1, 1, 2])
    batch = make_batch(data, np.array([0, 2, 3]))
    assert len(batch.passages) == 3  # the other answer is embedded for its own sake only
    assert batch.masked.tolist() == [[False, True, False], [False, False, False], [False, False, False]]


def test_one_text_from_two_sources_is_one_query(tmp_path: Path) -> None:
    from embed_assets.encoder.load import load_encoder

    path, _ = tiny_data(tmp_path)
    pairs = pairs_table(4, negatives=0).with_columns(
        pl.Series("query", ["retry", "retry", "cache", "post"]),
        pl.Series("query_id", ["commit 1", "docstring 1", "docstring 2", "docstring 2"]),
    )
    data = prepare(load_encoder(path, device="cpu"), pairs, hard_negatives=1)
    assert data.query_ids.tolist() == [0, 0, 1, 1]
    masked = make_batch(data, np.arange(4)).masked
    assert masked[:2, :2].tolist() == [[False, True], [True, False]]
    assert not masked[:2, 2:].any()


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=2, max_size=40))
def test_no_batch_of_an_epoch_takes_an_answer_for_a_negative(rows: list[tuple[int, int]]) -> None:
    data = made_of([query for query, _ in rows], [positive for _, positive in rows])
    for batch_rows in epoch_batches(data, 8, seed=1, epoch=0):
        batch = make_batch(data, batch_rows)
        passages = [batch.tokens[index][0] for index in batch.passages]  # a passage's one token is its number
        for row, masked in zip(batch_rows.tolist(), batch.masked, strict=True):
            query, positive = rows[row]
            wrong = {passage for asked, passage in rows if asked == query} - {positive}
            assert {passage for passage, hidden in zip(passages, masked, strict=True) if hidden} == wrong & {*passages}


def test_epochs_differ_and_the_seed_decides() -> None:
    data = made_of(list(range(40)), list(range(40)))
    first, again = (epoch_batches(data, 8, seed=1, epoch=0) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (epoch_batches(data, 8, seed=1, epoch=1), epoch_batches(data, 8, seed=2, epoch=0)):
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_equal_texts_are_embedded_once(tmp_path: Path) -> None:
    from embed_assets.encoder.load import load_encoder

    path, _ = tiny_data(tmp_path)
    pairs = pairs_table(4).with_columns(pl.lit(["shared negative"]).alias("hard_negatives"))
    data = prepare(load_encoder(path, device="cpu"), pairs, hard_negatives=1)
    batch = make_batch(data, np.arange(4))
    assert len(batch.tokens) == 4 + 4 + 1
    assert len(batch.passages) == 5


def test_a_hard_negative_that_is_a_positive_elsewhere_keeps_its_identity(tmp_path: Path) -> None:
    """Row 0's hard negative is row 1's positive, and row 1 has row 0's query: it must be masked."""
    from embed_assets.encoder.load import load_encoder

    path, _ = tiny_data(tmp_path)
    pairs = pairs_table(3)
    positives = pairs["positive"].to_list()
    pairs = pairs.with_columns(
        pl.Series("hard_negatives", [[positives[1]], [], []], dtype=pl.List(pl.String)),
        pl.Series("query_id", ["same", "same", "other"]),
    )
    batch = make_batch(prepare(load_encoder(path, device="cpu"), pairs, hard_negatives=1), np.arange(3))
    assert batch.masked[0].tolist() == [False, True, False]
    assert batch.masked[1].tolist() == [True, False, False]


def test_json_lines_with_nothing_but_texts(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"query": f"q{n}", "positive": f"p{n // 2}"}) + "\n" for n in range(4)))
    pairs = read_pairs(file)
    assert pairs["split"].to_list() == ["train"] * 4
    assert pairs["snippet_id"].n_unique() == 2
    assert pairs["hard_negatives"].to_list() == [[]] * 4


def test_the_newest_pairs_are_kept(tmp_path: Path) -> None:
    pairs_table(20, validation=5).write_parquet(tmp_path / "pairs.parquet")
    kept = read_pairs(tmp_path / "pairs.parquet", max_pairs=3)
    assert kept.filter(pl.col("split") == "train")["written_at"].to_list() == [14, 13, 12]
    assert len(kept.filter(pl.col("split") == "validation")) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "q", "positive": "p"}\n', "has no column 'query'"),
        ('{"query": " ", "positive": "p"}\n', "has rows with an empty query"),
        ('{"query": "q", "positive": null}\n{"query": "q", "positive": "p"}\n', "has rows with an empty positive"),
        ("not json\n", "cannot be read"),
        ("", "is empty; write a row a line"),
        ('{"query": 5, "positive": "p"}\n', "has a query of type Int64; allowed: String"),
        ('{"query": null, "positive": "p"}\n', "has rows with an empty query"),
        ('{"query": "q", "positive": "p", "hard_negatives": [["n"]]}\n', "has a column of a type that does not fit"),
        ('{"query": "q", "positive": "p", "written_at": "yesterday"}\n', "has a column of a type that does not fit"),
    ],
)
def test_a_pairs_file_that_cannot_be_used(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(content)
    with pytest.raises(TrainingError, match=message):
        read_pairs(file)


def test_a_missing_pairs_file(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="does not exist; `embed-assets run` writes one"):
        read_pairs(tmp_path / "none.parquet")


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows(rows: int, tmp_path: Path) -> None:
    from embed_assets.encoder.load import load_encoder

    path, _ = tiny_data(tmp_path)
    with pytest.raises(TrainingError, match=f"{rows} training rows; at least 2 are needed"):
        prepare(load_encoder(path, device="cpu"), pairs_table(rows), hard_negatives=1)


def test_a_damaged_table_beside_the_pairs_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rehearsal.parquet"
    file.write_text("no table")
    with pytest.raises(TrainingError, match=r"rehearsal\.parquet cannot be read: .*; build the pairs again"):
        read_beside(file, REHEARSAL_SCHEMA)
    pl.DataFrame({"query": ["what it does"]}).write_parquet(file)
    with pytest.raises(TrainingError, match="build the pairs again"):
        read_beside(file, REHEARSAL_SCHEMA)
