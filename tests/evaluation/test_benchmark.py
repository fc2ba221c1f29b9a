"""Benchmarks are frozen, verified when read, and survive the way to BEIR's format and back."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embed_assets.evaluation.benchmark import (
    BenchmarkError,
    export_beir,
    import_beir,
    of_source,
    read_benchmark,
    write_benchmark,
)
from embed_assets.files import StoreError
from embed_assets.records import CORPUS_SCHEMA, QUERY_SCHEMA, Benchmark


def a_benchmark(texts: list[str] | None = None, *, cutoff: int = 0) -> Benchmark:
    texts = texts or ["a.py one\ndef one(): ...", 'b.py two\nprint("zwei\tä")']
    corpus = pl.DataFrame(
        [
            {
                "document_id": f"d{number}",
                "text": text,
                "parts": [text[:5], text[5:]] if number else [],
                "repository": "shop",
                "language": "python",
                "path": "a.py",
                "name": f"n{number}",
            }
            for number, text in enumerate(texts)
        ],
        schema=dict(CORPUS_SCHEMA),
    )
    queries = pl.DataFrame(
        [
            {
                "query_id": f"q{number}",
                "text": f"find {text}",
                "masked_text": "find",
                "source": "commit",
                "repository": "shop",
                "language": "python",
                "group_id": "g",
                "written_at": 12,
                "relevant": [f"d{number}", "d0"] if number else ["d0"],
            }
            for number, text in enumerate(texts)
        ],
        schema=dict(QUERY_SCHEMA),
    )
    digest = Benchmark.digest_for(corpus, queries, cutoff)
    return Benchmark(name="test", digest=digest, cutoff=cutoff, corpus=corpus, queries=queries)


def same(left: Benchmark, right: Benchmark) -> bool:
    return left.digest == right.digest and left.corpus.equals(right.corpus) and left.queries.equals(right.queries)


def test_a_new_cutoff_is_a_new_benchmark_although_the_questions_are_the_same(tmp_path: Path) -> None:
    before, after = (write_benchmark(a_benchmark(cutoff=cutoff), tmp_path) for cutoff in (77, 78))
    assert before != after
    assert (read_benchmark(before).cutoff, read_benchmark(after).cutoff) == (77, 78)


def test_a_benchmark_survives_the_disk(tmp_path: Path) -> None:
    benchmark = a_benchmark(cutoff=77)
    folder = write_benchmark(benchmark, tmp_path)
    assert folder == tmp_path / benchmark.digest
    found = read_benchmark(folder)
    assert same(found, benchmark) and found.cutoff == 77 and found.name == "test"
    assert (folder / "qrels.tsv").read_text().splitlines()[:2] == ["query-id\tcorpus-id\tscore", "q0\td0\t1"]


def test_a_frozen_folder_is_never_written_again(tmp_path: Path) -> None:
    folder = write_benchmark(a_benchmark(), tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert write_benchmark(a_benchmark(), tmp_path) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_an_altered_benchmark_is_refused(tmp_path: Path) -> None:
    folder = write_benchmark(a_benchmark(), tmp_path)
    corpus = pl.read_parquet(folder / "corpus.parquet").with_columns(text=pl.lit("easy"))
    corpus.write_parquet(folder / "corpus.parquet")
    with pytest.raises(BenchmarkError, match="altered after it was frozen"):
        read_benchmark(folder)
    with pytest.raises(BenchmarkError, match="altered"):
        write_benchmark(a_benchmark(), tmp_path)


def test_a_missing_benchmark_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        read_benchmark(tmp_path / "current")


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    folder = write_benchmark(a_benchmark(), tmp_path)
    (folder / "queries.parquet").write_bytes(b"no parquet")
    with pytest.raises(BenchmarkError, match="no readable benchmark"):
        read_benchmark(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relevant": [["absent"], ["d0"]]}, "not in the corpus, such as absent"),
        ({"relevant": [[], ["d0"]]}, "no relevant document"),
        ({"query_id": ["q", "q"]}, "two queries share an id"),
        ({"text": ["changed", "text"]}, "it claims"),
    ],
)
def test_a_contradiction_is_not_frozen(tmp_path: Path, change: dict[str, list[object]], message: str) -> None:
    benchmark = a_benchmark()
    queries = benchmark.queries.with_columns(**{name: pl.Series(values) for name, values in change.items()})
    queries = queries.cast(dict(QUERY_SCHEMA))  # type: ignore[arg-type]
    with pytest.raises(BenchmarkError, match=message):
        write_benchmark(replace(benchmark, queries=queries), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_beir_export_is_what_beir_reads(tmp_path: Path) -> None:
    folder = export_beir(a_benchmark(), tmp_path / "beir")
    document = json.loads((folder / "corpus.jsonl").read_text().splitlines()[0])
    assert {"_id", "title", "text"} <= document.keys()
    assert json.loads((folder / "queries.jsonl").read_text().splitlines()[1])["_id"] == "q1"
    rows = [line.split("\t") for line in (folder / "qrels" / "test.tsv").read_text().splitlines()]
    assert rows[0] == ["query-id", "corpus-id", "score"] and ["q1", "d0", "1"] in rows


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # It leaves a file open.
def test_an_independent_reader_reads_what_was_exported(tmp_path: Path) -> None:
    """bm25s brings its own reader of BEIR's format."""
    from bm25s.utils.beir import load_corpus, load_qrels, load_queries

    benchmark = a_benchmark()
    export_beir(benchmark, tmp_path / "task")
    corpus = load_corpus("task", save_dir=str(tmp_path), show_progress=False)
    asked = load_queries("task", save_dir=str(tmp_path), show_progress=False)
    judged = load_qrels("task", save_dir=str(tmp_path), show_progress=False)
    assert {key: found["text"] for key, found in corpus.items()} == dict(
        benchmark.corpus.select("document_id", "text").iter_rows()
    )
    assert {key: found["text"] for key, found in asked.items()} == dict(
        benchmark.queries.select("query_id", "text").iter_rows()
    )
    assert {key: sorted(found) for key, found in judged.items()} == {
        key: sorted(relevant) for key, relevant in benchmark.queries.select("query_id", "relevant").iter_rows()
    }
    assert {score for found in judged.values() for score in found.values()} == {1}


def test_one_source_of_queries_is_a_task_of_its_own() -> None:
    benchmark = a_benchmark()
    mixed = replace(
        benchmark, queries=benchmark.queries.with_columns(source=pl.Series(["commit", "docstring"], dtype=pl.String))
    )
    found = of_source(mixed, "commit")
    assert found.queries["source"].to_list() == ["commit"] and found.corpus.height == 2
    assert found.digest == Benchmark.digest_for(found.corpus, found.queries, found.cutoff) != mixed.digest
    with pytest.raises(BenchmarkError, match="no queries of the source 'issue'; allowed: commit, docstring"):
        of_source(mixed, "issue")


@settings(max_examples=60)
@given(st.lists(st.text(min_size=1).filter(lambda text: text.isprintable()), min_size=1, max_size=6))
def test_to_beir_and_back_changes_nothing(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    benchmark = a_benchmark(texts)
    folder = export_beir(benchmark, tmp_path_factory.mktemp("beir") / "task")
    found = import_beir(folder, name="test")
    assert found.digest == benchmark.digest
    assert found.corpus.equals(benchmark.corpus)
    assert found.queries.drop("relevant").equals(benchmark.queries.drop("relevant"))


def foreign(folder: Path, corpus: str, queries: str, qrels: str) -> Path:
    folder.mkdir()
    for name, content in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels.tsv", qrels)):
        (folder / name).write_text(content)
    return folder


CORPUS = '{"_id": 1, "title": "Head", "text": "body"}\n{"_id": "2", "text": "alone"}\n'
QUERIES = '{"_id": "a", "text": "one"}\n{"_id": "b", "text": "unjudged"}\n'
QRELS = "query-id\tcorpus-id\tscore\na\t1\t2\na\t2\t0\nb\t9\t1\n"


def test_a_foreign_set_is_read(tmp_path: Path) -> None:
    found = import_beir(foreign(tmp_path / "nfcorpus", CORPUS, QUERIES, QRELS))
    assert found.name == "nfcorpus"
    assert found.corpus["text"].to_list() == ["Head\nbody", "alone"]
    assert found.corpus["parts"].to_list() == [[], []]
    assert found.queries.select("query_id", "relevant", "source").rows() == [("a", ["1"], "external")]


@pytest.mark.parametrize(
    ("corpus", "queries", "qrels", "message"),
    [
        ("{nonsense", QUERIES, QRELS, r"corpus\.jsonl, line 1 is not JSON"),
        ('{"_id": 1}\n', QUERIES, QRELS, r"line 1 needs `_id` and `text`"),
        (CORPUS, QUERIES, QRELS + "a\t1\n", r"qrels\.tsv, line 5: expected query id, corpus id and score"),
        (CORPUS, '{"_id": "a", "text": "one", "metadata": 3}\n', QRELS, "`metadata` must be an object"),
        (CORPUS + '{"_id": "1", "text": "again"}', QUERIES, QRELS, "two documents share an id"),
    ],
)
def test_a_bad_foreign_set_names_the_line(tmp_path: Path, corpus: str, queries: str, qrels: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        import_beir(foreign(tmp_path / "bad", corpus, queries, qrels))


def test_a_foreign_set_without_a_file_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"corpus\.jsonl cannot be read"):
        import_beir(tmp_path / "empty")
