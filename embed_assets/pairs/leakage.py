"""The proof that nothing the model is judged on was there to be learnt, by other means than the split itself.

Nothing is shared with `separation`: the tables are read as training and evaluation read them, equality goes by
digests, and near-duplicates are found by an exact set-similarity join (prefix filtering: Chaudhuri, Ganti and
Kaushik 2006; Bayardo, Ma and Srikant 2007), which overlooks nothing, where the split uses MinHash.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Literal

import polars as pl

from embed_assets.records import Benchmark, query_digest

NEAR = 0.8
"""Jaccard similarity from which two texts count as the same; the split's threshold, stated again on purpose."""

LeakKind = Literal["query", "near_query", "definition", "content", "near_code", "lineage", "cutoff"]
Tokens = frozenset[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """One thing that stands on both sides."""

    kind: LeakKind
    benchmark: str
    query_id: str
    """Of the held-out query."""
    pair_id: str
    """Of the training or validation row; empty for what an earlier night learnt."""
    similarity: float
    learnt: str
    """Text on the learning side, shortened."""
    held_out: str
    """Text on the judging side, shortened."""

    @property
    def line(self) -> str:
        return f"{self.kind} ({self.similarity:.2f}) in {self.benchmark}: {self.learnt!r} ~ {self.held_out!r}"


def find_leaks(pairs: pl.DataFrame, benchmark: Benchmark, copies: Mapping[str, str]) -> list[Leak]:
    """Everything of the train and validation rows that `benchmark` judges by; empty when the sides are apart.

    Args:
        pairs: schema PAIR_SCHEMA, all splits.
        benchmark: the test side, or the guard.
        copies: definition_id -> the document that stands for it (`tables.copies_of`): who asks for a document asks
            for every copy of it, in any version.
    """
    learnt = pairs.filter(pl.col("split") != "test")
    return [*_query_leaks(learnt, benchmark), *_answer_leaks(learnt, benchmark, copies)]


def lineage_leaks(benchmark: Benchmark, *, query_digests: Collection[str], cutoff: int) -> list[Leak]:
    """What a model, or one it continues, has learnt of `benchmark`.

    Args:
        query_digests: `records.query_digest` of every query it was ever trained on.
        cutoff: the latest T of its trainings; 0 where there was none. It may not lie after the benchmark's.
    """
    learnt = set(query_digests)
    leaks = [
        _leak("lineage", benchmark, query_id, "", 1.0, text, text)
        for query_id, text in zip(benchmark.queries["query_id"], benchmark.queries["text"], strict=True)
        if query_digest(text) in learnt
    ]
    if benchmark.cutoff and cutoff > benchmark.cutoff:
        later = f"trained on commits up to {cutoff}"
        leaks.append(_leak("cutoff", benchmark, "", "", 1.0, later, f"judged by commits after {benchmark.cutoff}"))
    return leaks


def near_join(
    left: Sequence[Tokens], right: Sequence[Tokens], threshold: float = NEAR
) -> Iterator[tuple[int, int, float]]:
    """Every (index in `left`, index in `right`, Jaccard similarity) at or above `threshold`; exact.

    Two sets as similar as that share an element among the rarest |x| - ceil(threshold * |x|) + 1 of each.
    """
    frequency = Counter(element for tokens in (*left, *right) for element in tokens)

    def prefix(tokens: Tokens) -> list[tuple[str, ...]]:
        rarest = sorted(tokens, key=lambda element: (frequency[element], element))
        return rarest[: len(rarest) - ceil(threshold * len(rarest)) + 1]

    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, tokens in enumerate(left):
        for element in prefix(tokens) if tokens else ():
            index[element].append(place)
    for other, tokens in enumerate(right):
        candidates = {place for element in (prefix(tokens) if tokens else ()) for place in index.get(element, ())}
        for place in sorted(candidates):
            shared = len(left[place] & tokens)
            similarity = shared / (len(left[place]) + len(tokens) - shared)
            if similarity >= threshold:
                yield place, other, similarity


def _query_leaks(learnt: pl.DataFrame, benchmark: Benchmark) -> Iterator[Leak]:
    rows = learnt.unique("query", keep="first", maintain_order=True)
    texts, pair_ids = rows["query"].to_list(), rows["pair_id"].to_list()
    held_out, query_ids = benchmark.queries["text"].to_list(), benchmark.queries["query_id"].to_list()
    by_digest = {query_digest(text): place for place, text in enumerate(held_out)}
    for text, pair_id in zip(texts, pair_ids, strict=True):
        place = by_digest.get(query_digest(text))
        if place is not None:
            yield _leak("query", benchmark, query_ids[place], pair_id, 1.0, text, held_out[place])
    for place, other, similarity in near_join([_words(text) for text in held_out], [_words(text) for text in texts]):
        if query_digest(held_out[place]) != query_digest(texts[other]):
            yield _leak(
                "near_query", benchmark, query_ids[place], pair_ids[other], similarity, texts[other], held_out[place]
            )


def _answer_leaks(learnt: pl.DataFrame, benchmark: Benchmark, copies: Mapping[str, str]) -> Iterator[Leak]:
    asked = _asked_documents(benchmark)
    rows = learnt.unique("positive", keep="first", maintain_order=True)
    positives, pair_ids = rows["positive"].to_list(), rows["pair_id"].to_list()
    for definition_id, pair_id, positive in learnt.select("definition_id", "pair_id", "positive").iter_rows():
        if (document := asked.get(copies.get(definition_id, definition_id))) is not None:
            query_id, text = document
            yield _leak("definition", benchmark, query_id, pair_id, 1.0, positive, text)
    contents = {_squeezed(text): (query_id, text) for query_id, text in asked.values()}
    for positive, pair_id in zip(positives, pair_ids, strict=True):
        if (same := contents.get(_squeezed(positive))) is not None:
            yield _leak("content", benchmark, same[0], pair_id, 1.0, positive, same[1])
    documents = list(asked.values())
    for place, other, similarity in near_join(
        [_five_tokens(_code(text)) for _, text in documents], [_five_tokens(_code(text)) for text in positives]
    ):
        query_id, text = documents[place]
        if _squeezed(text) != _squeezed(positives[other]):
            yield _leak("near_code", benchmark, query_id, pair_ids[other], similarity, positives[other], text)


def _asked_documents(benchmark: Benchmark) -> Mapping[str, tuple[str, str]]:
    """document_id -> (a query that asks for it, its text), for every relevant document."""
    texts = dict(zip(benchmark.corpus["document_id"].to_list(), benchmark.corpus["text"].to_list(), strict=True))
    return {
        document_id: (query_id, texts[document_id])
        for query_id, relevant in benchmark.queries.select("query_id", "relevant").iter_rows()
        for document_id in relevant
    }


def _code(embedded: str) -> str:
    """The code of an embedded text: all but its header line."""
    return embedded.partition("\n")[2]


def _squeezed(embedded: str) -> str:
    return "".join(_code(embedded).split())


def _words(text: str) -> Tokens:
    words = re.findall(r"\w+", text.lower())
    return frozenset([*((word,) for word in words), *pairwise(words)])


def _five_tokens(code: str) -> Tokens:
    tokens = re.findall(r"\w+|[^\w\s]", code)
    return frozenset(zip(*(tokens[start:] for start in range(5)), strict=False)) or frozenset(
        [tuple(tokens)] if tokens else []
    )


def _leak(
    kind: LeakKind, benchmark: Benchmark, query_id: str, pair_id: str, similarity: float, learnt: str, held_out: str
) -> Leak:
    return Leak(
        kind=kind,
        benchmark=benchmark.name,
        query_id=query_id,
        pair_id=pair_id,
        similarity=similarity,
        learnt=_shortened(learnt),
        held_out=_shortened(held_out),
    )


def _shortened(text: str, most: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def summary(leaks: Iterable[Leak]) -> dict[str, int]:
    """Kind -> how many."""
    return dict(sorted(Counter(leak.kind for leak in leaks).items()))
