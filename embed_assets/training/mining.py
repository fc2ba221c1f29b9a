"""Hard negatives mined with the base model: what it puts nearest a query, wrongly, among all that could be found.

Functions of the answer's file are alike in place; these are alike in meaning, and bring functions to training that
no row asks for (docs/experiments.md has what that is worth). Knows no adapter: it is done once, before the first step.
"""

import logging
import time
from collections.abc import Sequence

import polars as pl

from embed_assets.encoder.encoder import Encoder
from embed_assets.retrieval.negatives import NO_DOCUMENT, mine_hard_negatives

logger = logging.getLogger(__name__)


def with_mined_negatives(encoder: Encoder, pairs: pl.DataFrame, documents: pl.DataFrame) -> pl.DataFrame:
    """`pairs` with one mined negative in front of each row's own; a row for which none is found keeps its own.

    Args:
        pairs: rows to learn from, PAIR_SCHEMA.
        documents: what may be shown, NEGATIVE_SCHEMA; nothing that judges is in it.

    No answer of a row's query is mined, and nothing that scores above 95% of its own positive's score.
    """
    from embed_assets.encoder.flat_encode import drop_encoding_stack

    started = time.monotonic()
    queries = _places(pairs["query"].to_list())
    passages = _places([*documents["text"].to_list(), *pairs["positive"].to_list()])
    texts = list(passages)
    query_vectors = encoder.encode(list(queries), kind="query")  # (queries, dim)
    vectors = encoder.encode(texts)  # (passages, dim)
    drop_encoding_stack(encoder)  # an adapter comes next, and needs the memory
    mined = mine_hard_negatives(
        query_vectors[[queries[text] for text in pairs["query"].to_list()]],
        vectors,
        [passages[text] for text in pairs["positive"].to_list()],
        _answers(pairs, documents, passages),
        count=1,
    )[:, 0]
    own = pairs["hard_negatives"].to_list()
    negatives = [
        row if place == NO_DOCUMENT else [texts[place], *(text for text in row if text != texts[place])]
        for row, place in zip(own, mined.tolist(), strict=True)
    ]
    logger.info(
        "%d hard negatives mined among %d functions in %.1f s",
        int((mined != NO_DOCUMENT).sum()), len(texts), time.monotonic() - started,
    )  # fmt: skip
    return pairs.with_columns(hard_negatives=pl.Series(negatives, dtype=pl.List(pl.String)))


def _places(texts: Sequence[str]) -> dict[str, int]:
    return {text: place for place, text in enumerate(dict.fromkeys(texts))}


def _answers(pairs: pl.DataFrame, documents: pl.DataFrame, passages: dict[str, int]) -> list[list[int]]:
    """Per row, where all answers of its query stand: by text, by definition and by content."""
    bearing: dict[tuple[str, str], set[int]] = {}
    known = pl.concat([documents, pairs.select(pl.col("positive").alias("text"), "definition_id", "snippet_id")])
    for text, definition_id, snippet_id in known.select("text", "definition_id", "snippet_id").iter_rows():
        for name in (("definition", definition_id), ("content", snippet_id)):
            bearing.setdefault(name, set()).add(passages[text])
    columns = ("query_id", "query", "definition_id", "snippet_id")
    rows = list(pairs.select(columns).iter_rows())
    answers: dict[tuple[str, str], set[int]] = {}
    for query_id, query, definition_id, snippet_id in rows:
        places = bearing["definition", definition_id] | bearing["content", snippet_id]
        for name in (("id", query_id), ("text", query)):
            answers.setdefault(name, set()).update(places)
    return [sorted(answers["id", query_id] | answers["text", query]) for query_id, query, _, _ in rows]
