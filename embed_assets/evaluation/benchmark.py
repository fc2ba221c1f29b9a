"""Frozen retrieval tasks on disk: written once under their digest, verified when read, exchanged in BEIR's format.

The format of BEIR (Thakur et al. 2021) is what MTEB-style tools read: `corpus.jsonl`, `queries.jsonl` and
`qrels/test.tsv`. Knows nothing of how a benchmark is made, and nothing of models.
"""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.files import StoreError, new_directory, read_documents, read_json, write_text
from embed_assets.records import CORPUS_SCHEMA, QUERY_SCHEMA, Benchmark

QRELS_HEADER = ("query-id", "corpus-id", "score")


class BenchmarkError(ValueError):
    """A benchmark contradicts itself, was altered after it was frozen, or is not in the format it should be in."""


def write_benchmark(benchmark: Benchmark, root: Path) -> Path:
    """Freezes `benchmark` as the folder `root/DIGEST`; one that is there already is left as it is.

    Raises:
        BenchmarkError: the benchmark contradicts itself, or the folder of its digest holds something else.
    """
    problem = _contradiction(benchmark)
    if problem:
        raise BenchmarkError(f"benchmark {benchmark.name}: {problem}")
    folder = root / benchmark.digest
    if folder.exists():
        read_benchmark(folder)
        return folder
    with new_directory(folder) as directory:
        benchmark.corpus.write_parquet(directory / "corpus.parquet")
        benchmark.queries.write_parquet(directory / "queries.parquet")
        (directory / "qrels.tsv").write_text(_qrels(benchmark.queries), encoding="utf-8")
        document = {
            "name": benchmark.name,
            "digest": benchmark.digest,
            "cutoff": benchmark.cutoff,
            "documents": benchmark.corpus.height,
            "queries": benchmark.queries.height,
        }
        (directory / "benchmark.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return folder


def read_benchmark(path: Path) -> Benchmark:
    """Reads what `write_benchmark` wrote; `path` may be a link such as `benchmarks/current`.

    Raises:
        StoreError: there is no benchmark at `path`.
        BenchmarkError: its content does not match its digest.
    """
    document = read_json(path / "benchmark.json")
    try:
        corpus = pl.read_parquet(path / "corpus.parquet").select(_columns(CORPUS_SCHEMA))
        queries = pl.read_parquet(path / "queries.parquet").select(_columns(QUERY_SCHEMA))
        benchmark = Benchmark(
            name=document["name"],
            digest=document["digest"],
            cutoff=document["cutoff"],
            corpus=corpus,
            queries=queries,
        )
    except (OSError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise BenchmarkError(
            f"{path} is no readable benchmark: {error!r}; delete it and build the pairs again"
        ) from error
    problem = _contradiction(benchmark)
    if problem:
        raise BenchmarkError(
            f"benchmark at {path} was altered after it was frozen: {problem}; "
            f"delete the folder and build the pairs again"
        )
    return benchmark


def of_source(benchmark: Benchmark, source: str) -> Benchmark:
    """The same task with the queries of one source.

    Raises:
        BenchmarkError: it has none.
    """
    queries = benchmark.queries.filter(pl.col("source") == source)
    if not queries.height:
        allowed = ", ".join(sorted(benchmark.queries["source"].unique().to_list()))
        raise BenchmarkError(f"the benchmark has no queries of the source {source!r}; allowed: {allowed}")
    digest = Benchmark.digest_for(benchmark.corpus, queries, benchmark.cutoff)
    return replace(benchmark, digest=digest, queries=queries)


def export_beir(benchmark: Benchmark, folder: Path) -> Path:
    """Writes `corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv`; what BEIR has no field for goes into `metadata`.

    Raises:
        StoreError: `folder` exists already.
    """
    documents = (
        {"_id": row.pop("document_id"), "title": "", "text": row.pop("text"), "metadata": row}
        for row in benchmark.corpus.iter_rows(named=True)
    )
    queries = (
        {"_id": row.pop("query_id"), "text": row.pop("text"), "metadata": row}
        for row in benchmark.queries.drop("relevant").iter_rows(named=True)
    )
    with new_directory(folder) as directory:
        write_text(directory / "corpus.jsonl", _lines(documents))
        write_text(directory / "queries.jsonl", _lines(queries))
        write_text(directory / "qrels" / "test.tsv", _qrels(benchmark.queries))
    return folder


def import_beir(folder: Path, *, name: str = "") -> Benchmark:
    """Reads a task in BEIR's format, ours or anyone's; `qrels.tsv` beside the corpus is accepted too.

    Documents are `title`, a line break and `text`, or `text` alone. Queries without a relevant document in the corpus
    are left out, as BEIR's own tools do. Judgements of 0 and below are not relevant.

    Raises:
        StoreError: a file is missing.
        BenchmarkError: a file is not in the format; the message names the line.
    """
    documents = [_document(line, where) for where, line in _read_lines(folder / "corpus.jsonl")]
    known = {document["document_id"] for document in documents}
    relevant = _relevant(folder, known)
    queries = []
    for where, line in _read_lines(folder / "queries.jsonl"):
        query = _query(line, where)
        if query["query_id"] in relevant:
            queries.append({**query, "relevant": sorted(relevant[query["query_id"]])})
    corpus_table = pl.DataFrame(documents, schema=dict(CORPUS_SCHEMA))
    query_table = pl.DataFrame(queries, schema=dict(QUERY_SCHEMA))
    benchmark = Benchmark(
        name=name or folder.name,
        digest=Benchmark.digest_for(corpus_table, query_table, cutoff=0),
        cutoff=0,
        corpus=corpus_table,
        queries=query_table,
    )
    problem = _contradiction(benchmark)
    if problem:
        raise BenchmarkError(f"{folder}: {problem}")
    return benchmark


def _contradiction(benchmark: Benchmark) -> str:
    """What is wrong with a benchmark, in words; empty when nothing is."""
    corpus, queries = benchmark.corpus, benchmark.queries
    for what, frame, schema in (("corpus", corpus, CORPUS_SCHEMA), ("queries", queries, QUERY_SCHEMA)):
        if dict(frame.schema) != pl.Schema(schema):
            return f"the {what} have the columns {dict(frame.schema)}, expected {dict(schema)}"
    if corpus["document_id"].n_unique() != corpus.height:
        return "two documents share an id"
    if queries["query_id"].n_unique() != queries.height:
        return "two queries share an id"
    if queries.filter(pl.col("relevant").list.len() == 0).height:
        return "a query has no relevant document"
    asked_for = queries.select(pl.col("relevant").explode().alias("document_id")).unique()
    missing = asked_for.join(corpus, on="document_id", how="anti")
    if missing.height:
        return f"{missing.height} relevant documents are not in the corpus, such as {missing['document_id'][0]}"
    digest = Benchmark.digest_for(corpus, queries, benchmark.cutoff)
    return "" if digest == benchmark.digest else f"its content has the digest {digest}, it claims {benchmark.digest}"


def _columns(schema: Any) -> list[pl.Expr]:
    return [pl.col(name).cast(kind) for name, kind in schema.items()]


def _qrels(queries: pl.DataFrame) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(QRELS_HEADER)
    for query_id, relevant in zip(queries["query_id"].to_list(), queries["relevant"].to_list(), strict=True):
        writer.writerows((query_id, document_id, 1) for document_id in relevant)
    return text.getvalue()


def _lines(documents: Any) -> str:
    return "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)


def _read_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    found = read_documents(path, malformed=BenchmarkError)
    for where, document in found:
        if not isinstance(document, dict) or not isinstance(document.get("text"), str) or "_id" not in document:
            raise BenchmarkError(f"{where} needs `_id` and `text`")
    return found


def _document(line: dict[str, Any], where: str) -> dict[str, Any]:
    title = line.get("title") or ""
    extra = _metadata(line, where)
    parts = extra.get("parts") or []
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise BenchmarkError(f"{where}: `parts` must be a list of texts")
    return {
        "document_id": str(line["_id"]),
        "text": f"{title}\n{line['text']}" if title else line["text"],
        "parts": parts,
        **{field: str(extra.get(field, "")) for field in ("repository", "language", "path", "name")},
    }


def _query(line: dict[str, Any], where: str) -> dict[str, Any]:
    extra = _metadata(line, where)
    return {
        "query_id": str(line["_id"]),
        "text": line["text"],
        "masked_text": str(extra.get("masked_text", line["text"])),
        "source": str(extra.get("source", "external")),
        "repository": str(extra.get("repository", "")),
        "language": str(extra.get("language", "")),
        "group_id": str(extra.get("group_id", line["_id"])),
        "written_at": int(extra.get("written_at", 0)),
    }


def _metadata(line: dict[str, Any], where: str) -> dict[str, Any]:
    metadata = line.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise BenchmarkError(f"{where}: `metadata` must be an object, found {type(metadata).__name__}")
    return metadata


def _relevant(folder: Path, known: set[str]) -> dict[str, set[str]]:
    """Query id -> its relevant documents of the corpus."""
    path = folder / "qrels" / "test.tsv"
    path = path if path.exists() else folder / "qrels.tsv"
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")), delimiter="\t"))
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    relevant: dict[str, set[str]] = {}
    for number, row in enumerate(rows, 1):
        if not row or (number == 1 and tuple(row) == QRELS_HEADER):
            continue
        try:
            query_id, document_id, score = row
            judged_relevant = float(score) > 0
        except ValueError:
            raise BenchmarkError(
                f"{path}, line {number}: expected query id, corpus id and score, found {row}"
            ) from None
        if judged_relevant and document_id in known:
            relevant.setdefault(query_id, set()).add(document_id)
    return relevant
