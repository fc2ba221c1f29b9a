"""Pairs to batches: every text is tokenised once, and no batch takes an answer of a query for its negative.

Reads the pairs table (parquet) or JSON lines written by anyone (`query`, `positive`, optionally `hard_negatives`,
`weight`, `split`). It knows no model beyond its tokenizer.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from embed_assets.encoder.encoder import Encoder
from embed_assets.records import PAIR_SCHEMA, digest_of
from embed_assets.training.errors import TrainingError
from embed_assets.training.loss import masked_columns, similar_passages


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """Unique texts with their token ids, and rows that point to them."""

    query_texts: list[str]
    passage_texts: list[str]
    query_tokens: list[list[int]]
    """(queries,) of each of query_texts"""
    passage_tokens: list[list[int]]
    """(passages,) of each of passage_texts"""
    queries: np.ndarray
    """(rows,) index into the queries"""
    positives: np.ndarray
    """(rows,) index into the passages"""
    negatives: np.ndarray
    """(rows, k) index into the passages; -1 where there is none"""
    query_ids: np.ndarray
    """(rows,) rows that share a query, by its text or by its id in the pairs, share an id, counted from 0"""
    contents: np.ndarray
    """(passages,) passages with equal content share an id"""
    definitions: np.ndarray
    """(passages,) passages of one definition share an id; -1 where it is not known"""
    weights: np.ndarray
    """(rows,) float32"""
    truncated: int
    """Texts that were cut to the longest input."""

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def tokens_per_row(self) -> float:
        """Mean tokens of a row, all its columns together, before texts that a batch repeats are embedded once."""
        return float(self.row_tokens().mean())

    @cached_property
    def passage_sets(self) -> list[np.ndarray]:
        """(passages,) the distinct token ids of each, for finding passages that are nearly equal."""
        return [np.unique(tokens) for tokens in self.passage_tokens]

    @cached_property
    def answers(self) -> list[list[int]]:
        """(queries,) by query id: every passage that is its positive in some row, as an index into passage_tokens."""
        found: list[dict[int, None]] = [{} for _ in range(int(self.query_ids.max()) + 1)]
        for query, positive in zip(self.query_ids.tolist(), self.positives.tolist(), strict=True):
            found[query][positive] = None
        return [list(positives) for positives in found]

    def row_tokens(self) -> np.ndarray:  # (rows,)
        """Tokens of each row, all its columns together."""
        query = np.array([len(row) for row in self.query_tokens])
        passage = np.array([len(row) for row in self.passage_tokens])
        negatives = np.where(self.negatives >= 0, passage[self.negatives], 0).sum(axis=1)
        return np.asarray(query[self.queries] + passage[self.positives] + negatives)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rehearsed:
    """Foreign docs and their functions beside a batch, whose ranking is to stay the base model's."""

    queries: np.ndarray
    """(draw,) index into the batch's tokens"""
    passages: np.ndarray
    """(draw,) index into the batch's tokens"""
    scores: np.ndarray
    """(draw, draw) float32, the base model's cosines of queries and passages"""
    weight: float
    """Of its loss beside InfoNCE."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Taught:
    """What a teacher holds of a batch: how likely each passage is meant by each row's query."""

    targets: np.ndarray
    """(rows, columns) float32, distributions; zero where a column is masked"""
    share: float
    """Of the teacher in the loss; the label has the rest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One step: the distinct token rows to embed, and how rows and columns point to them."""

    tokens: list[list[int]]
    """Distinct queries, then distinct passages, then what is rehearsed."""
    queries: np.ndarray
    """(rows,) index into tokens"""
    passages: np.ndarray
    """(columns,) index into tokens"""
    positives: np.ndarray
    """(rows,) column of each row's positive"""
    masked: np.ndarray
    """(rows, columns) bool"""
    weights: np.ndarray
    """(rows,) float32"""
    rehearsed: Rehearsed | None = None
    taught: Taught | None = None
    """What a teacher holds of it, if there is one."""


def read_pairs(path: Path, *, max_pairs: int | None = None) -> pl.DataFrame:
    """The rows of a pairs file with all columns of PAIR_SCHEMA; what a file of one's own leaves out is filled in.

    Args:
        max_pairs: keep at most so many training rows, the newest.

    Raises:
        TrainingError: the file is missing, cannot be read, or lacks a query or a positive.
    """
    if not path.is_file():
        raise TrainingError(f"pairs file {path} does not exist; `embed-assets run` writes one from the repositories")
    if not path.stat().st_size:
        raise TrainingError(f"pairs file {path} is empty; write a row a line: " + '{"query": "...", "positive": "..."}')
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise TrainingError(f"pairs file {path} cannot be read: {first}; allowed: parquet, JSON lines") from error
    for column in ("query", "positive"):
        if column not in frame.columns:
            raise TrainingError(f"pairs file {path} has no column {column!r}; it has {', '.join(frame.columns)}")
        if (kind := frame[column].dtype) not in (pl.String, pl.Null):
            raise TrainingError(f"pairs file {path} has a {column} of type {kind}; allowed: String")
        if frame[column].null_count() or (frame[column].str.strip_chars() == "").any():
            raise TrainingError(f"pairs file {path} has rows with an empty {column}")
    try:
        frame = _complete(frame)
    except pl.exceptions.PolarsError as error:
        first = str(error).strip().splitlines()[0]
        raise TrainingError(f"pairs file {path} has a column of a type that does not fit: {first}") from error
    if max_pairs is not None:
        train = frame.filter(pl.col("split") == "train").sort("written_at", descending=True, maintain_order=True)
        frame = pl.concat([train.head(max_pairs), frame.filter(pl.col("split") != "train")])
    return frame


def read_beside(path: Path, schema: Mapping[str, Any]) -> pl.DataFrame:
    """A table that the pairs bring along, with the columns of `schema`.

    Raises:
        TrainingError: the file cannot be read.
    """
    try:
        return pl.read_parquet(path).select(list(schema))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TrainingError(f"{path} cannot be read: {error}; build the pairs again, or delete it") from error


def _complete(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds the columns of PAIR_SCHEMA that are missing, with what they mean by default."""
    by_text = {"query_id": "query", "snippet_id": "positive", "definition_id": "positive"}
    for column, source in by_text.items():
        if column not in frame.columns:
            digests = [digest_of(text) for text in frame[source].to_list()]
            frame = frame.with_columns(pl.Series(column, digests, dtype=pl.String))
    defaults = {
        "hard_negatives": pl.lit([], dtype=pl.List(pl.String)),
        "weight": pl.lit(1.0),
        "split": pl.lit("train"),
        "source": pl.lit("file"),
        "written_at": pl.lit(0),
    }
    missing = [value.alias(name) for name, value in defaults.items() if name not in frame.columns]
    frame = frame.with_columns(missing)
    known = [pl.col(name).cast(kind) for name, kind in PAIR_SCHEMA.items() if name in frame.columns]
    return frame.with_columns(known).with_columns(pl.col("hard_negatives").fill_null([]))


def prepare(encoder: Encoder, pairs: pl.DataFrame, *, hard_negatives: int) -> TrainingData:
    """Tokenises the rows of `pairs`, each distinct text once.

    Raises:
        TrainingError: fewer than two rows; one row has nothing to be told apart from.
    """
    if len(pairs) < 2:
        raise TrainingError(f"{len(pairs)} training rows; at least 2 are needed")
    queries = pairs["query"].to_list()
    positives = pairs["positive"].to_list()
    negatives = [row[:hard_negatives] for row in pairs["hard_negatives"].to_list()]
    query_index = {text: index for index, text in enumerate(dict.fromkeys(queries))}
    passages = dict.fromkeys([*positives, *(text for row in negatives for text in row)])
    passage_index = {text: index for index, text in enumerate(passages)}
    contents, definitions = _identities(pairs, list(passages))
    negative_rows = np.full((len(pairs), hard_negatives), -1, dtype=np.int64)
    for row, texts in enumerate(negatives):
        negative_rows[row, : len(texts)] = [passage_index[text] for text in texts]
    query_tokens = encoder.tokenise(list(query_index), "query")
    passage_tokens = encoder.tokenise(list(passage_index), "passage")
    return TrainingData(
        query_texts=list(query_index),
        passage_texts=list(passage_index),
        query_tokens=list(query_tokens),
        passage_tokens=list(passage_tokens),
        queries=np.array([query_index[text] for text in queries]),
        positives=np.array([passage_index[text] for text in positives]),
        negatives=negative_rows,
        query_ids=_query_ids(queries, pairs["query_id"].to_list()),
        contents=contents,
        definitions=definitions,
        weights=pairs["weight"].to_numpy().astype(np.float32),
        truncated=query_tokens.truncated + passage_tokens.truncated,
    )


def _query_ids(texts: list[str], ids: list[str]) -> np.ndarray:  # (rows,)
    """One number for rows of one query: the same text has an id of its own in each source of pairs."""
    joined: dict[tuple[str, str], tuple[str, str]] = {}

    def root(name: tuple[str, str]) -> tuple[str, str]:
        while joined.setdefault(name, name) != name:
            joined[name] = joined[joined[name]]  # halves the way of the next one
            name = joined[name]
        return name

    for text, query_id in zip(texts, ids, strict=True):
        joined[root(("text", text))] = root(("id", query_id))
    return _as_integers([root(("text", text)) for text in texts])


def _identities(pairs: pl.DataFrame, passages: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(content, definition) of each passage: a hard negative that is a positive elsewhere has that one's identity."""
    snippet_of = dict(zip(pairs["positive"].to_list(), pairs["snippet_id"].to_list(), strict=True))
    definition_of = dict(zip(pairs["positive"].to_list(), pairs["definition_id"].to_list(), strict=True))
    contents = _as_integers([snippet_of.get(text, f"text:{text}") for text in passages])
    known = [definition_of.get(text) for text in passages]
    definitions = _as_integers([name or "" for name in known])
    return contents, np.where([name is None for name in known], -1, definitions)


def _as_integers(names: Sequence[Hashable]) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def epoch_batches(data: TrainingData, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Row numbers of each batch of one pass: shuffled by seed and epoch, sizes as equal as can be.

    The in-batch rule: rows that share a query, a content or a definition go to different batches where that is
    possible, so that no row is lost to a mask; `masked_columns` keeps answers from being negatives wherever they are.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(data))
    count = max(1, -(-len(data) // batch_size))
    while count > 1 and len(data) // count < 2:
        count -= 1
    limit = [len(data) // count + (number < len(data) % count) for number in range(count)]
    batches: list[list[int]] = [[] for _ in range(count)]
    taken: list[Keys] = [set() for _ in range(count)]
    open_from = 0
    for row in order.tolist():
        keys = _identity_keys(data, row)
        free = (number for number in range(open_from, count) if len(batches[number]) < limit[number])
        first_free = next(free)
        fits = (number for number in (first_free, *free) if not keys & taken[number])
        chosen = next(fits, None)
        if chosen is None:
            chosen, row, keys = first_free, *_exchange(data, batches, taken, first_free, row, keys)
        batches[chosen].append(row)
        taken[chosen] |= keys
        while open_from < count and len(batches[open_from]) == limit[open_from]:
            open_from += 1
    shuffled = np.random.default_rng([seed, epoch, 1]).permutation(count)
    return [np.array(batches[number]) for number in shuffled]


Keys = set[tuple[str, int]]


def _exchange(
    data: TrainingData, batches: list[list[int]], taken: list[Keys], target: int, row: int, keys: Keys
) -> tuple[int, Keys]:
    """A row for batch `target` in exchange for `row`, which fits there no more; `row` itself where there is none."""
    for number, batch in enumerate(batches):
        if number == target or keys & taken[number]:
            continue
        for place, other in enumerate(batch):
            other_keys = _identity_keys(data, other)
            if not other_keys & taken[target]:
                batch[place] = row
                taken[number] = set().union(*(_identity_keys(data, member) for member in batch))
                return other, other_keys
    return row, keys


def _identity_keys(data: TrainingData, row: int) -> Keys:
    positive = data.positives[row]
    keys = {("query", int(data.query_ids[row])), ("content", int(data.contents[positive]))}
    if data.definitions[positive] >= 0:
        keys.add(("definition", int(data.definitions[positive])))
    return keys


def batch_passages(data: TrainingData, rows: np.ndarray) -> np.ndarray:  # (columns,)
    """The distinct passages of a batch of the given rows, in the order of its columns: positives, then negatives."""
    negatives = data.negatives[rows]
    return np.array(list(dict.fromkeys([*data.positives[rows].tolist(), *negatives[negatives >= 0].tolist()])))


def make_batch(data: TrainingData, rows: np.ndarray) -> Batch:
    """The batch of the given rows: equal texts are embedded once, what answers a query is masked.

    Also an answer that only rows of other batches ask for: it may be here as another query's positive.
    """
    positives, passages = data.positives[rows], batch_passages(data, rows)
    queries, query_place = np.unique(data.queries[rows], return_inverse=True)
    column = {passage: place for place, passage in enumerate(passages.tolist())}
    positive_columns = np.array([column[passage] for passage in positives.tolist()])
    tokens = [data.query_tokens[index] for index in queries] + [data.passage_tokens[index] for index in passages]
    answers = [data.answers[query] for query in data.query_ids[rows]]
    known = np.array(list(dict.fromkeys([*passages.tolist(), *(passage for each in answers for passage in each)])))
    return Batch(
        tokens=tokens,
        queries=query_place.reshape(-1),
        passages=len(queries) + np.arange(len(passages)),
        positives=positive_columns,
        masked=masked_columns(
            positive_columns, _answering(answers, known), data.contents[known], data.definitions[known],
            similar_passages([data.passage_sets[index] for index in known]), len(passages),
        ),
        weights=data.weights[rows],
    )  # fmt: skip


def _answering(answers: list[list[int]], known: np.ndarray) -> np.ndarray:  # (rows, known) bool
    """Which of the `known` passages are among each row's answers."""
    place = {passage: number for number, passage in enumerate(known.tolist())}
    found = np.zeros((len(answers), len(known)), dtype=bool)
    for row, each in enumerate(answers):
        found[row, [place[passage] for passage in each]] = True
    return found
