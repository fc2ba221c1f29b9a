"""One query's answers: from vectors on disk, in the query's own space and in no other."""

from pathlib import Path

import pytest

from embed_assets.evaluation.answers import nearest
from embed_assets.evaluation.errors import EvaluationError
from embed_assets.evaluation.vectors import embed
from tests.evaluation.made_store import FakeEncoder, make_benchmark


def test_the_function_that_is_asked_for_comes_first(tmp_path: Path) -> None:
    benchmark, encoder = make_benchmark("shop", 12), FakeEncoder()
    texts, parts = benchmark.corpus["text"].to_list(), benchmark.corpus["parts"].to_list()
    embed(encoder, texts, kind="passage", name="benchmark-passages", root=tmp_path, parts=parts)
    [query] = encoder.encode(["what function_7 returns"], kind="query")
    answers = nearest(query, benchmark, space_id=encoder.space_id, root=tmp_path)
    assert answers[0].name == "function_7"
    assert len(answers) == 3
    assert answers[0].path == "shop.py"
    assert answers[0].score >= answers[1].score >= answers[2].score


def test_vectors_of_another_space_are_not_compared(tmp_path: Path) -> None:
    benchmark, encoder = make_benchmark("shop", 12), FakeEncoder()
    embed(encoder, benchmark.corpus["text"].to_list(), kind="passage", name="benchmark-passages", root=tmp_path)
    [query] = FakeEncoder(noise=1.0).encode(["what function_7 returns"], kind="query")
    with pytest.raises(EvaluationError, match="12 of 12 texts have no vector"):
        nearest(query, benchmark, space_id="fake-1.0", root=tmp_path)
