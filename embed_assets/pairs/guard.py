"""The guard against forgetting: docs of the Python standard library and the functions they describe.

It needs no download and resembles nobody's own code. A night that teaches a model the team's code at the price of
everyone else's shows here. The guard wins nothing: what resembles the training rows leaves the guard, not the training.
Knows nothing of models and margins.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from embed_assets.files import write_file
from embed_assets.pairs.corpus import Corpus, Function, corpus_of
from embed_assets.pairs.docs import doc_query
from embed_assets.pairs.near_duplicates import near_pairs
from embed_assets.pairs.separation import Sketches, taken_answers
from embed_assets.pairs.sources import Proposal
from embed_assets.pairs.wording import masked, says_more_than
from embed_assets.records import QUERY_SCHEMA, SNIPPET_SCHEMA, Benchmark, digest_of, query_digest
from embed_assets.snippets.cache import cache_version
from embed_assets.snippets.extract import definition_id_of, snippet_id_of
from embed_assets.snippets.package_source import STANDARD_LIBRARY, PackageSource, standard_library
from embed_assets.snippets.parse import parse

DOCUMENTS_PER_QUERY = 2
"""Every answer, and as many functions beside them. The whole library would cost a CPU minutes a model."""
RESERVE = 200
"""More queries than needed are drawn, in case some resemble the training rows."""


def build_guard(training: list[Proposal], sketches: Sketches, cache: Path, *, queries: int) -> Benchmark:
    """The guard for a model that learns from `training`: the same every night as long as nothing of it is learnt.

    Args:
        training: what is learnt from, validation included.
        sketches: shared with the rest of the night.
        cache: folder that keeps the library's functions until another Python or extractor comes.
        queries: how many to ask. A margin of one to two points of reciprocal rank needs about a thousand to be told
            from chance; fewer are the first of the same order.
    """
    library = _library(cache)
    drawn = documented(library, queries + RESERVE)
    kept = unlike(drawn, training, sketches)[:queries]
    asked = {function.definition_id for function, _ in kept}
    beside = sorted(
        (function for function in library.documents() if function.definition_id not in asked),
        key=lambda function: digest_of("guard document", function.definition_id),
    )
    room = max(0, DOCUMENTS_PER_QUERY * queries - len(asked))
    documents = asked | {function.definition_id for function in beside[:room]}
    corpus = library.table().filter(pl.col("document_id").is_in(sorted(documents)))
    table = pl.DataFrame([_query(function, text) for function, text in kept], schema=dict(QUERY_SCHEMA))
    return Benchmark(
        name="guard", digest=Benchmark.digest_for(corpus, table, cutoff=0), cutoff=0, corpus=corpus, queries=table
    )


def documented(library: Corpus, most: int) -> list[tuple[Function, str]]:
    """At most `most` documented functions with their query, each text once; their names alone decide the order."""
    found: dict[str, tuple[Function, str]] = {}
    for function in sorted(library.documents(), key=lambda function: digest_of("guard query", function.definition_id)):
        text, _ = doc_query(function.doc)
        if text and says_more_than(text, [function.name]):
            found.setdefault(query_digest(text), (function, text))
        if len(found) == most:
            break
    return list(found.values())


def unlike(
    drawn: Sequence[tuple[Function, str]], proposals: Sequence[Proposal], sketches: Sketches
) -> list[tuple[Function, str]]:
    """Without what resembles one of `proposals`, in its query or in its answer."""
    as_proposals = [
        Proposal(source="guard", split="test", query=text, answers=(function,), repository="", group_id="")
        for function, text in drawn
    ]
    learnt = [answer for proposal in proposals for answer in proposal.answers]
    taken = taken_answers(learnt, as_proposals, sketches)
    resembling = {
        place
        for _, place, _ in near_pairs(
            [sketches.of_query(proposal.query) for proposal in proposals],
            [sketches.of_query(text) for _, text in drawn],
        )
    }
    return [
        (function, text)
        for place, (function, text) in enumerate(drawn)
        if place not in resembling and function.snippet_id not in taken
    ]


def _query(function: Function, text: str) -> dict[str, object]:
    return {
        "query_id": digest_of("guard", function.definition_id, text),
        "text": text,
        "masked_text": masked(text, [function.name]),
        "source": "guard",
        "repository": function.repository,
        "language": function.language,
        "group_id": digest_of(function.repository, function.path),
        "written_at": 0,
        "relevant": [function.definition_id],
    }


def _library(cache: Path) -> Corpus:
    """Functions of the running Python's library; parsed once for each Python and extractor."""
    key = digest_of(STANDARD_LIBRARY, sys.version, cache_version())[:16]
    return corpus_of([parsed_once(cache / f"{key}.parquet", _parsed_library)])


def parsed_once(file: Path, parse_it: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """The table in `file`; made and written where there is none, or a damaged one."""
    try:
        return pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError):
        table = parse_it()
        write_file(file, table.write_parquet)
        return table


def _parsed_library() -> pl.DataFrame:
    with standard_library() as source:
        return parsed(source)


def parsed(source: PackageSource, *, most_files: int | None = None) -> pl.DataFrame:
    """Definitions of a package's Python files without its tests, SNIPPET_SCHEMA.

    Args:
        most_files: at most so many, chosen by their names.
    """
    rows = []
    entries = [entry for entry in source.entries() if entry.path.endswith(".py") and "/test" not in f"/{entry.path}"]
    entries = sorted(entries, key=lambda entry: digest_of("file", entry.path))[:most_files]
    contents = dict(source.read(entry.blob_id for entry in entries))
    for entry in sorted(entries, key=lambda entry: entry.path):
        for definition in parse(contents[entry.blob_id], "python").definitions:
            rows.append(
                {
                    **{name: getattr(definition, name) for name in _OF_DEFINITION},
                    "definition_id": definition_id_of(source.name, entry.path, definition),
                    "snippet_id": snippet_id_of("python", definition.code),
                    "repository": source.name,
                    "path": entry.path,
                    "language": "python",
                    "blob_id": entry.blob_id,
                    "is_test": False,
                }
            )
    return pl.DataFrame(rows, schema=dict(SNIPPET_SCHEMA))


_OF_DEFINITION = ("kind", "scope", "name", "signature", "doc", "code", "parts", "start_line", "end_line")
