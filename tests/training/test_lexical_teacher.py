"""What BM25 finds by words is held beside the label: over the right passages, without the masked ones, and learnt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from embed_assets.encoder.load import load_encoder
from embed_assets.retrieval.fusion import zscores
from embed_assets.retrieval.lexical import lexical_index
from embed_assets.training import loop
from embed_assets.training.adapter import adapter_state
from embed_assets.training.curve import StepRecord
from embed_assets.training.data import Batch, TrainingData, batch_passages, make_batch, prepare
from embed_assets.training.lexical_teacher import TEACHER_TEMPERATURE, LexicalTeacher, lexical_teacher
from embed_assets.training.loop import train
from tests.training.made_pairs import ONE_GO, pairs_table, tiny_data, tiny_recipe
from tests.training.test_loop import PowerCutError
from tests.training.test_step import CACHED, adapted, gradients

ELSEWHERE = ["other.py sweep\ndef sweep(): pass", "other.py mop\ndef mop(): pass"]


def taught(data: TrainingData, rows: np.ndarray, documents: list[str], share: float = 0.5) -> Batch:
    return lexical_teacher(data, documents, share=share).beside(make_batch(data, rows), data, rows)


def test_targets_are_the_lexical_ranking_of_the_batchs_passages(tmp_path: Path) -> None:
    _, data = tiny_data(tmp_path)
    data = replace(data, query_ids=np.maximum(data.query_ids, 1))  # the first two rows ask the same
    rows = np.arange(12)
    batch = taught(data, rows, ELSEWHERE)
    assert batch.taught is not None
    corpus = list(dict.fromkeys([*ELSEWHERE, *data.passage_texts]))
    columns = [corpus.index(data.passage_texts[passage]) for passage in batch_passages(data, rows)]
    queries = [data.query_texts[query] for query in data.queries[rows]]
    expected = np.exp(zscores(lexical_index(corpus).scores(queries))[:, columns] / TEACHER_TEMPERATURE)
    expected[batch.masked] = 0
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(batch.taught.targets, expected, atol=1e-6)
    assert batch.masked.any() and not batch.taught.targets[batch.masked].any()


def test_what_shares_no_word_is_taught_by_its_label(tmp_path: Path) -> None:
    path, _ = tiny_data(tmp_path)
    pairs = pairs_table(8).with_columns(
        query=pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("zebra")).otherwise("query")
    )
    data = prepare(load_encoder(path, device="cpu"), pairs, hard_negatives=1)
    batch = taught(data, np.arange(8), [])
    assert batch.taught is not None
    silent = batch.taught.targets[3]
    assert silent[batch.positives[3]] == 1 and silent.sum() == 1
    assert np.count_nonzero(batch.taught.targets[2]) > 1


def test_words_that_only_functions_outside_the_batch_have_smooth_the_label(tmp_path: Path) -> None:
    path, _ = tiny_data(tmp_path)
    pairs = pairs_table(4, negatives=0).with_columns(query=pl.format("sweep {}", pl.Series(["wa", "xa", "ya", "za"])))
    data = prepare(load_encoder(path, device="cpu"), pairs, hard_negatives=0)
    batch = taught(data, np.arange(4), ELSEWHERE)
    assert batch.taught is not None
    np.testing.assert_allclose(batch.taught.targets, 0.25)


def test_a_corpus_without_a_word_leaves_the_label(tmp_path: Path) -> None:
    path, _ = tiny_data(tmp_path)
    pairs = pairs_table(4, negatives=0).with_columns(positive=pl.Series(["!", "?", "{}", "=="]))
    data = prepare(load_encoder(path, device="cpu"), pairs, hard_negatives=0)
    batch = taught(data, np.arange(4), [])
    assert batch.taught is not None
    np.testing.assert_array_equal(batch.taught.targets, np.eye(4)[batch.positives])


@pytest.mark.parametrize("path_name", ["padded", "flat"])
def test_cached_gradients_carry_it_exactly(path_name: str, tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path)
    encoder = adapted(path)
    batch = taught(data, np.arange(12), ELSEWHERE)
    _, expected = gradients(encoder, batch, ONE_GO)
    _, cached = gradients(encoder, batch, CACHED, path_name)
    _, without = gradients(encoder, replace(batch, taught=None), ONE_GO)
    assert torch.linalg.vector_norm(cached - expected) < 1e-4 * torch.linalg.vector_norm(expected)
    assert torch.linalg.vector_norm(without - expected) > 0.01 * torch.linalg.vector_norm(expected)


def test_an_interrupted_run_goes_on_with_it_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = tiny_data(tmp_path)
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1.0)

    def trained(observe: Callable[[StepRecord, int], None], progress: Path) -> dict[str, torch.Tensor]:
        encoder = load_encoder(path, device="cpu", threads=1)
        teacher = lexical_teacher(data, ELSEWHERE, share=0.5)
        train(
            encoder, data, tiny_recipe(), teacher=teacher, path="padded", precision="float32",
            observe=observe, progress_file=progress, run="a run",
        )  # fmt: skip
        return adapter_state(encoder.model)

    def power_cut(record: StepRecord, steps: int) -> None:
        if record.step == 3:
            raise PowerCutError

    whole = trained(lambda record, steps: None, tmp_path / "whole.safetensors")
    with pytest.raises(PowerCutError):
        trained(power_cut, tmp_path / "cut.safetensors")
    resumed = trained(lambda record, steps: None, tmp_path / "cut.safetensors")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize("path_name", ["padded", "flat"])
def test_the_adapter_takes_over_the_teachers_ranking(path_name: str, tmp_path: Path) -> None:
    """Rows with shuffled positives: only the teacher knows which passage has a query's words."""
    path, _ = tiny_data(tmp_path)
    pairs = pairs_table(48, negatives=0)
    answers = pl.col("positive", "definition_id", "snippet_id")
    wrong = pairs.with_columns(answers.gather((pl.int_range(pl.len()) + 7) % pl.len()))
    agreement = {}
    for share in (0.0, 0.9):
        encoder = load_encoder(path, device="cpu")
        data = prepare(encoder, wrong, hard_negatives=0)
        teacher = lexical_teacher(data, [], share=share)
        train(encoder, data, tiny_recipe(epochs=30), teacher=teacher, path=path_name, precision="float32")
        agreement[share] = _agreement(
            teacher, data, encoder.encode_rows(data.query_tokens), encoder.encode_rows(data.passage_tokens)
        )
    assert agreement[0.9] > agreement[0.0] + 0.2


def _agreement(teacher: LexicalTeacher, data: TrainingData, queries: np.ndarray, passages: np.ndarray) -> float:
    """Mean correlation over queries between the model's scores and the teacher's."""
    lexical = teacher.index.scores(data.query_texts)[:, teacher.places]
    return float((zscores(queries @ passages.T) * zscores(lexical)).mean())
