"""Mined negatives: near the query, below its answer, never one of its answers."""

from typing import Any

import numpy as np
import polars as pl
import torch

from embed_assets.records import NEGATIVE_SCHEMA, PAIR_SCHEMA
from embed_assets.training.mining import with_mined_negatives

AT = {"ask": 0, "other": 90, "right": 10, "also right": 20, "copy": 25, "near": 40, "far": 80, "too near": 5, "own": 60}
"""Degrees of each text's vector: the nearer in angle, the more alike."""


class Angles:
    """An encoder whose vectors are known."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(1, 1)

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        angles = np.radians([AT[text] for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def a_pair(query: str, positive: str, *own: str, query_id: str = "") -> dict[str, Any]:
    empty = dict.fromkeys(PAIR_SCHEMA, "") | {"weight": 1.0, "written_at": 0, "split": "train"}
    known = {"definition_id": f"d {positive}", "snippet_id": f"s {positive}", "hard_negatives": list(own)}
    return empty | known | {"query": query, "positive": positive, "query_id": query_id or query}


def mined(pairs: list[dict[str, Any]], *documents: str, same: dict[str, str] | None = None) -> list[list[str]]:
    contents = {text: f"s {(same or {}).get(text, text)}" for text in documents}
    table = pl.DataFrame(
        [(text, f"d {text}", contents[text]) for text in documents], schema=dict(NEGATIVE_SCHEMA), orient="row"
    )
    frame = pl.DataFrame(pairs, schema=dict(PAIR_SCHEMA))
    return with_mined_negatives(Angles(), frame, table)["hard_negatives"].to_list()  # type: ignore[arg-type]


def test_the_nearest_function_that_is_no_answer_comes_first() -> None:
    assert mined([a_pair("ask", "right", "own")], "right", "far", "near") == [["near", "own"]]


def test_what_scores_as_high_as_the_answer_may_be_one() -> None:
    assert mined([a_pair("ask", "right")], "too near", "far", "near") == [["near"]]


def test_no_answer_of_the_query_in_any_row_is_mined_nor_a_copy_of_one() -> None:
    pairs = [a_pair("ask", "right"), a_pair("ask", "also right", query_id="elsewhere")]
    assert mined(pairs, "right", "also right", "copy", "far", same={"copy": "right"}) == [["far"], ["far"]]


def test_a_row_without_one_keeps_its_own_and_none_is_named_twice() -> None:
    assert mined([a_pair("ask", "right", "own")], "right") == [["own"]]
    assert mined([a_pair("ask", "right", "own")], "right", "own") == [["own"]]
