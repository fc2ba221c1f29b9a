"""Mined negatives never answer the query, and fill up what the pairs brought."""

from pathlib import Path

import numpy as np

from embed_assets.encoder.load import load_encoder
from embed_assets.training.mining import answers, with_mined_negatives
from tests.training.made_pairs import tiny_data


def test_mined_negatives_are_no_answers_and_stand_in_front(tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path)
    mined = with_mined_negatives(load_encoder(path, device="cpu"), data, count=2)
    assert mined.negatives.shape == (30, 2)
    assert (mined.negatives >= 0).mean() > 0.5
    for row, excluded in enumerate(answers(data)):
        assert not set(excluded) & set(mined.negatives[row].tolist())
        assert data.positives[row] in excluded


def test_answers_follow_the_query_the_content_and_the_definition(tmp_path: Path) -> None:
    _, data = tiny_data(tmp_path, rows=4)
    data.query_ids[:] = [0, 0, 1, 2]
    data.contents[data.positives[3]] = data.contents[data.positives[2]]
    found = answers(data)
    assert set(found[0]) == set(found[1]) == {int(data.positives[0]), int(data.positives[1])}
    assert set(found[2]) >= {int(data.positives[2]), int(data.positives[3])}
    assert np.array_equal(found[2], found[3])
