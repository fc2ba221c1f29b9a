"""Proposals become rows: the pairs table, the JSON lines for training elsewhere, the benchmark.

Knows the schemas; decides nothing any more.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.files import write_text
from embed_assets.pairs.corpus import Corpus, Function
from embed_assets.pairs.near_duplicates import THRESHOLD, code_shingles, jaccard
from embed_assets.pairs.negatives import hard_negatives as negatives_of
from embed_assets.pairs.separation import Sketches
from embed_assets.pairs.sources import Proposal
from embed_assets.pairs.wording import masked
from embed_assets.records import NEGATIVE_SCHEMA, PAIR_SCHEMA, QUERY_SCHEMA, Benchmark, Pair, digest_of, table


def pair_rows(
    proposals: Sequence[Proposal],
    corpus: Corpus,
    sketches: Sketches,
    *,
    hard_negatives: int,
    held_out: Collection[str],
) -> pl.DataFrame:
    """One row per query and answer, schema PAIR_SCHEMA, newest first; rows to learn from get their negatives.

    None of them is one of `held_out` (`negatives.held_out_contents`).
    """
    judged = [(proposal, answer) for proposal in proposals if proposal.split == "test" for answer in proposal.answers]
    learnt = [(proposal, answer) for proposal in proposals if proposal.split != "test" for answer in proposal.answers]
    negatives = negatives_of(learnt, corpus, sketches, most=hard_negatives, held_out=held_out)
    rows = [_pair(*row, beside) for row, beside in zip(learnt, negatives, strict=True)]
    rows += [_pair(*row, ()) for row in judged]
    return table(rows, PAIR_SCHEMA).sort(
        ["split", "written_at", "pair_id"], descending=[False, True, False], maintain_order=True
    )


def query_id_of(proposal: Proposal) -> str:
    return digest_of(proposal.repository, proposal.source, proposal.query)


def benchmark_of(test: Sequence[Proposal], corpus: Corpus, cutoff: int) -> Benchmark:
    """The test side as a retrieval task over the whole corpus; an answer is the document that stands for it."""
    rows = [
        {
            "query_id": query_id_of(proposal),
            "text": proposal.query,
            "masked_text": masked(proposal.query, proposal.names),
            "source": proposal.source,
            "repository": proposal.repository,
            "language": proposal.answers[0].language,
            "group_id": proposal.group_id,
            "written_at": proposal.written_at,
            "relevant": sorted({corpus.representative(answer).definition_id for answer in proposal.answers}),
        }
        for proposal in test
    ]
    queries = pl.DataFrame(rows, schema=dict(QUERY_SCHEMA)).sort("query_id")
    documents = corpus.table()
    return Benchmark(
        name="test",
        digest=Benchmark.digest_for(documents, queries, cutoff),
        cutoff=cutoff,
        corpus=documents,
        queries=queries,
    )


def minable(corpus: Corpus, held_out: Collection[str]) -> pl.DataFrame:
    """Schema NEGATIVE_SCHEMA: the documents that are none of `held_out`."""
    documents = [document for document in corpus.documents() if document.snippet_id not in held_out]
    return pl.DataFrame(
        [(document.text, document.definition_id, document.snippet_id) for document in documents],
        schema=dict(NEGATIVE_SCHEMA), orient="row",
    )  # fmt: skip


def copies_of(corpus: Corpus) -> dict[str, str]:
    """definition_id of every copy -> definition_id of the document that stands for it."""
    documents = {
        definition_id: corpus.representatives[one.snippet_id] for definition_id, one in corpus.functions.items()
    }
    return {definition_id: document for definition_id, document in documents.items() if document != definition_id}


def write_json_lines(
    pairs: pl.DataFrame, corpus: Corpus, sketches: Sketches, folder: Path, *, held_out: Collection[str]
) -> None:
    """`train.jsonl`, `validation.jsonl`, `test.jsonl` as sentence-transformers loads them.

    The columns are `query`, `positive`, and as many `negative_N` as any row has. Every row must have them all, so a row
    whose file holds too few neighbours is filled up with functions of its repository, and if those do not suffice, of
    any; never with an answer, a near-duplicate of one, or one of `held_out`.
    """
    most = int(pairs["hard_negatives"].list.len().max() or 0)  # type: ignore[arg-type]
    documents = [document for document in corpus.documents() if document.snippet_id not in held_out]
    for split in ("train", "validation", "test"):
        rows = pairs.filter(pl.col("split") == split)
        columns = 0 if split == "test" else most
        write_text(folder / f"{split}.jsonl", "".join(_lines(rows, columns, documents, sketches)))


def _lines(rows: pl.DataFrame, negatives: int, documents: Sequence[Function], sketches: Sketches) -> Iterator[str]:
    answers: dict[str, list[dict[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        answers.setdefault(row["query_id"], []).append(row)
    by_repository: dict[str, list[Function]] = {}
    for document in documents:
        by_repository.setdefault(document.repository, []).append(document)
    for row in rows.iter_rows(named=True):
        line: dict[str, Any] = {"query": row["query"], "positive": row["positive"]}
        texts = list(row["hard_negatives"])[:negatives]
        if len(texts) < negatives:
            unlike = _unlike(answers[row["query_id"]], (by_repository.get(row["repository"], ()), documents), sketches)
            fresh = (text for text in unlike if text not in texts)
            texts += dict.fromkeys(islice(fresh, negatives - len(texts)))
        line |= {f"negative_{number}": text for number, text in enumerate(texts, 1)}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _unlike(
    answers: Sequence[Mapping[str, Any]], pools: Iterable[Sequence[Function]], sketches: Sketches
) -> Iterator[str]:
    """Texts of the pools' functions, from a place that the first answer decides, that answer nothing of `answers`."""
    definitions, contents = ({answer[name] for answer in answers} for name in ("definition_id", "snippet_id"))
    shingles = [code_shingles(answer["positive"].partition("\n")[2]) for answer in answers]
    start = int(answers[0]["pair_id"][:12], 16)
    for pool in pools:
        for step in range(len(pool)):
            document = pool[(start + step) % len(pool)]
            if document.definition_id in definitions or document.snippet_id in contents:
                continue
            if all(jaccard(sketches.of_code(document), answer) < THRESHOLD for answer in shingles):
                yield document.text


def _pair(proposal: Proposal, answer: Function, negatives: tuple[str, ...]) -> Pair:
    text = answer.text
    return Pair(
        pair_id=digest_of(proposal.query, text),
        query_id=query_id_of(proposal),
        source=proposal.source,
        split=proposal.split,
        query=proposal.query,
        positive=text,
        definition_id=answer.definition_id,
        snippet_id=answer.snippet_id,
        hard_negatives=negatives,
        repository=proposal.repository,
        language=answer.language,
        group_id=proposal.group_id,
        weight=proposal.weight,
        written_at=proposal.written_at,
    )
