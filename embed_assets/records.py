"""The frozen records that stages hand to each other, and the schemas of the tables they are stored in.

A record knows its own identity and nothing of files, models or Dagster. Stages exchange polars tables with
the schemas below; a record is one row of such a table, or one JSON document.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import polars as pl

Split = Literal["train", "validation", "test"]
SnippetKind = Literal["function", "method", "class", "module"]


BASE = "base"
"""Id of what is live while nothing is promoted: the base model itself."""


def digest_of(*parts: str) -> str:
    """SHA-256 over length-prefixed parts, 40 hex digits: no two different lists of parts share one."""
    sha = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        sha.update(len(encoded).to_bytes(8, "big"))
        sha.update(encoded)
    return sha.hexdigest()[:40]


def digest_of_json(document: Any) -> str:
    """Digest of a JSON document that does not depend on key order or spacing."""
    return digest_of(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def query_digest(text: str) -> str:
    """Digest of a query's text, case and white space ignored: how training manifests remember what was learnt from."""
    return digest_of(" ".join(text.lower().split()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Snippet:
    """One definition of a tree: a function, method, class or module, with its documentation taken out."""

    definition_id: str
    """Which definition: digest of repository, path, scope, name and disambiguator. Queries point to it."""
    snippet_id: str
    """Which content: digest of the language and the code without white space. Duplicates share it."""
    repository: str
    path: str
    """POSIX path inside the tree."""
    language: str
    kind: SnippetKind
    scope: str
    """Enclosing definitions, outermost first, joined by dots; empty at the top level."""
    name: str
    signature: str
    """The head of the definition on one line, body excluded."""
    doc: str
    """Documentation as written, comment markers removed; empty where there is none."""
    code: str
    """Source text of the definition with `doc` removed, so that a query made from it cannot leak."""
    parts: tuple[str, ...]
    """The same, divided along the syntax tree, of a function too long for a short-sighted model; empty of others."""
    start_line: int
    end_line: int
    blob_id: str
    """Git object id of the file (for an installed package: the id git would give it)."""
    is_test: bool


SNIPPET_SCHEMA: Mapping[str, Any] = {
    "definition_id": pl.String,
    "snippet_id": pl.String,
    "repository": pl.String,
    "path": pl.String,
    "language": pl.String,
    "kind": pl.String,
    "scope": pl.String,
    "name": pl.String,
    "signature": pl.String,
    "doc": pl.String,
    "code": pl.String,
    "parts": pl.List(pl.String),
    "start_line": pl.Int64,
    "end_line": pl.Int64,
    "blob_id": pl.String,
    "is_test": pl.Boolean,
}


def embedded_text(*, path: str, scope: str, name: str, code: str) -> str:
    """The exact text of a definition that is embedded, everywhere: a header line, then the code.

    The header `path scope name` is worth 5 to 6 points of recall@10 on commit queries (docs/experiments.md).
    """
    header = " ".join(part for part in (path, scope, name) if part)
    return f"{header}\n{code}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One training or held-out row: a query and the definition that answers it."""

    pair_id: str
    """Digest of query text and positive text."""
    query_id: str
    """Digest of repository, source and query text; the rows of one query share it."""
    source: str
    """Which rule made it: `docstring`, `commit` ..."""
    split: Split
    query: str
    positive: str
    """The positive's embedded text (header included)."""
    definition_id: str
    snippet_id: str
    """Content of the positive: rows that share it are never each other's negatives."""
    hard_negatives: tuple[str, ...] = ()
    """Embedded texts that resemble the query and do not answer it."""
    repository: str
    language: str
    group_id: str
    """What was written together (a commit, a file): the unit that is resampled in significance tests."""
    weight: float = 1.0
    written_at: int = 0
    """When the query was written, in seconds since 1970: a commit's committer time; 0 where there is no history."""


PAIR_SCHEMA: Mapping[str, Any] = {
    "pair_id": pl.String,
    "query_id": pl.String,
    "source": pl.String,
    "split": pl.String,
    "query": pl.String,
    "positive": pl.String,
    "definition_id": pl.String,
    "snippet_id": pl.String,
    "hard_negatives": pl.List(pl.String),
    "repository": pl.String,
    "language": pl.String,
    "group_id": pl.String,
    "weight": pl.Float64,
    "written_at": pl.Int64,
}

CORPUS_SCHEMA: Mapping[str, Any] = {
    "document_id": pl.String,
    "text": pl.String,
    "parts": pl.List(pl.String),
    "repository": pl.String,
    "language": pl.String,
    "path": pl.String,
    "name": pl.String,
}
"""A benchmark's corpus: `document_id` is a definition_id, `text` its embedded text. `parts` are the embedded texts that
stand for it where a model cannot read it whole (`Encoder.encode_documents`); empty for what is short."""

NEGATIVE_SCHEMA: Mapping[str, Any] = {
    "text": pl.String,
    "definition_id": pl.String,
    "snippet_id": pl.String,
}
"""Functions that may be shown in training as a hard negative: the corpus without what judges, and what nearly is."""

REHEARSAL_SCHEMA: Mapping[str, Any] = {
    "query": pl.String,
    "text": pl.String,
}
"""Docs of foreign functions and their embedded texts: training keeps the base model's ranking of them."""

QUERY_SCHEMA: Mapping[str, Any] = {
    "query_id": pl.String,
    "text": pl.String,
    "masked_text": pl.String,
    "source": pl.String,
    "repository": pl.String,
    "language": pl.String,
    "group_id": pl.String,
    "written_at": pl.Int64,
    "relevant": pl.List(pl.String),
}
"""`masked_text` is `text` with the names of the relevant definitions taken out; `relevant` holds document_ids."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A frozen retrieval task: queries, corpus, and which documents answer which query."""

    name: str
    digest: str
    """Digest over corpus, queries and cut-off; names the folder it is stored in."""
    cutoff: int
    """T, seconds since 1970: queries were written after it, the corpus is the tree at it; 0 without history."""
    corpus: pl.DataFrame
    """Schema CORPUS_SCHEMA."""
    queries: pl.DataFrame
    """Schema QUERY_SCHEMA."""

    @staticmethod
    def digest_for(corpus: pl.DataFrame, queries: pl.DataFrame, cutoff: int) -> str:
        """Digest of everything that a verdict rests on: every column, and T; independent of row order."""
        documents = sorted(corpus.select(list(CORPUS_SCHEMA)).rows())
        asked = sorted(
            queries.select(pl.col("relevant").list.sort(), pl.exclude("relevant")).select(list(QUERY_SCHEMA)).rows()
        )
        return digest_of_json([documents, asked, cutoff])


JUDGED_SOURCES = ("commit", "docstring")
"""Sources of held-out queries that decide about a promotion; those of others are reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceReport:
    """Ranks of every system on the queries of one source. All lists run parallel to `query_ids`."""

    name: str
    """`commit`, `docstring`, `guard` ..., or one of them with the own name masked: `docstring_masked`."""
    corpus_size: int
    query_ids: tuple[str, ...]
    group_ids: tuple[str, ...]
    repositories: tuple[str, ...]
    languages: tuple[str, ...]
    ranks: Mapping[str, tuple[tuple[int, ...], ...]]
    """System -> per query the 1-based ranks of its relevant documents, ascending.

    Systems: `base`, `live`, `candidate` (dense), `bm25`, `lexical` (BM25 over stems), and for each of the dense ones
    `hybrid_` (z-scores with `bm25`), `fused_` (z-scores with `lexical`) and `rrf_` (reciprocal ranks with `bm25`).
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallReport:
    """What one evaluation measured, bound by digest to everything it measured. Only judged, never recomputed."""

    candidate_id: str
    candidate_digest: str
    """Digest of the servable model's files: what was evaluated is what would be served."""
    live_id: str
    """Checkpoint id of the model to beat; `base` while nothing has been promoted."""
    live_digest: str
    base_model: str
    benchmark_digest: str
    guard_digest: str
    pairs_digest: str
    """Digest of the pairs the candidate was trained on."""
    cutoff: int
    attempt: int
    """How many candidates, this one included, met this live model: the gate divides its level by it."""
    slices: tuple[SliceReport, ...]
    created_at: str
    """ISO 8601, UTC."""
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default_factory=tuple)
    leaks: tuple[str, ...] = field(default_factory=tuple)
    """What the candidate, or the live model, was trained on and is asked here, in sentences; empty when all is well."""

    @property
    def digest(self) -> str:
        return digest_of_json(asdict(self))

    def slice(self, name: str) -> SliceReport | None:
        return next((part for part in self.slices if part.name == name), None)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "digest": self.digest}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "RecallReport":
        """Reads what `to_json` wrote.

        Raises:
            ReportCorruptError: the document was changed after it was written, or is not a report.
        """
        try:
            values = dict(document)
            claimed = values.pop("digest")
            values["slices"] = tuple(_slice_from_json(part) for part in values["slices"])
            values["notes"] = tuple(values.get("notes", ()))
            values["leaks"] = tuple(values.get("leaks", ()))
            report = cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ReportCorruptError(f"not a recall report: {error!r}") from error
        if report.digest != claimed:
            raise ReportCorruptError(
                f"recall report of candidate {report.candidate_id} was altered: its digest is {report.digest}, "
                f"it claims {claimed}; evaluate the candidate again"
            )
        return report


class ReportCorruptError(ValueError):
    """A recall report does not match the digest it carries."""


def _slice_from_json(document: Mapping[str, Any]) -> SliceReport:
    values: dict[str, Any] = {key: _tuples(value) for key, value in document.items() if key != "ranks"}
    values["ranks"] = {system: _tuples(rows) for system, rows in document["ranks"].items()}
    return SliceReport(**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def table(rows: Iterable[Any], schema: Mapping[str, Any]) -> pl.DataFrame:
    """Records of one kind as a table with exactly `schema`'s columns."""
    columns: dict[str, list[Any]] = {name: [] for name in schema}
    for row in rows:
        for name, values in columns.items():
            value = getattr(row, name)
            values.append(list(value) if isinstance(value, tuple) else value)
    return pl.DataFrame(columns, schema=dict(schema))
