"""From one tree of one source to a table of its snippets: filtered, parsed or remembered, and counted.

Knows one source at a time; nothing of settings, history and pairs.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from embed_assets.records import SNIPPET_SCHEMA
from embed_assets.snippets.cache import DefinitionCache, Key
from embed_assets.snippets.entries import Entry
from embed_assets.snippets.extract import definition_id_of, snippet_id_of
from embed_assets.snippets.filters import PathFilter, path_filter
from embed_assets.snippets.languages import is_test, language_of
from embed_assets.snippets.parse import PARSER_CRASHED, Blob, Parsed, load_grammars, parse_all
from embed_assets.snippets.repositories import Source
from embed_assets.store import Store

COPIED_FIELDS = ("kind", "scope", "name", "signature", "doc", "code", "parts", "start_line", "end_line")


@dataclass(frozen=True, kw_only=True)
class TreeCounts:
    """What one tree held and what was taken from it."""

    commit: str
    """Commit id; for a package a digest of its files."""
    files: int
    """Files that definitions were looked for in."""
    bytes: int
    """Of those files."""
    parsed_files: int
    """How many of them no cache knew."""
    parsed_bytes: int
    snippets: int
    documented: int
    tests: int
    by_language: Mapping[str, int]
    by_kind: Mapping[str, int]
    dropped: Mapping[str, int]
    """Reason -> files left out; `secret` counts definitions."""
    seconds: float


def snippets_at(
    source: Source, store: Store, revision: str = "", *, notices: list[str] | None = None
) -> tuple[pl.DataFrame, TreeCounts]:
    """Every snippet of one tree, in (path, line) order, duplicates included, and what was counted on the way.

    Args:
        revision: commit-ish; the source's head when empty.
        notices: receives what the user should know, such as a cache that had to be rebuilt.

    Returns:
        A table of SNIPPET_SCHEMA, and the counts.

    Raises:
        RepositoryError: the tree cannot be read.
        GrammarError: a grammar that is needed is missing or does not fit.
    """
    started = time.monotonic()
    commit = source.head if source.repo is None else source.resolve(revision)
    admitted, dropped = admitted_entries(source, revision)
    keys = [(entry.blob_id, language_of(entry.path) or "") for entry in admitted]
    parsed, fresh = definitions_of(source, store, keys, notices=notices)
    table, secrets = _rows(source.name, admitted, parsed, dropped)
    counted = dict(dropped) | ({"secret": secrets} if secrets else {})
    sizes = {entry.blob_id: entry.size for entry in admitted}
    return table, TreeCounts(
        commit=commit,
        files=len(admitted),
        bytes=sum(entry.size for entry in admitted),
        parsed_files=len(fresh),
        parsed_bytes=sum(sizes[blob_id] for blob_id, _ in fresh),
        snippets=table.height,
        documented=table.filter(pl.col("doc") != "").height,
        tests=int(table["is_test"].sum()),
        by_language=counts_by(table, "language"),
        by_kind=counts_by(table, "kind"),
        dropped=dict(sorted(counted.items())),
        seconds=round(time.monotonic() - started, 3),
    )


def admitted_entries(source: Source, revision: str = "") -> tuple[list[Entry], Counter[str]]:
    """Files of a tree that may hold snippets, and how many were left out for which reason."""
    entries = source.entries(revision)
    chosen = tree_filter(source, entries)
    dropped: Counter[str] = Counter()
    admitted = []
    for entry in entries:
        reason = chosen.reason(entry)
        if reason:
            dropped[reason] += 1
        else:
            admitted.append(entry)
    return admitted, dropped


def tree_filter(source: Source, entries: Iterable[Entry]) -> PathFilter:
    """The filter of one tree: the settings' globs, the conventions, the tree's own .gitattributes."""
    attribute_files = [entry for entry in entries if entry.path.rpartition("/")[2] == ".gitattributes" and entry.size]
    contents = source.read(entry.blob_id for entry in attribute_files) if attribute_files else ()
    rules = [(entry.path, content) for entry, (_, content) in zip(attribute_files, contents, strict=True)]
    return path_filter(source.include, source.exclude, rules)


def definitions_of(
    source: Source, store: Store, keys: Iterable[Key], *, notices: list[str] | None = None
) -> tuple[dict[Key, Parsed], list[Key]]:
    """Parsed files by (blob id, language), from the cache where it knows them; and the keys it did not know.

    This is how history reads old versions too: any blob that the source can read will do.

    Raises:
        RepositoryError: a blob cannot be read.
        GrammarError: a grammar that is needed is missing or does not fit.
    """
    wanted = list(dict.fromkeys(keys))
    load_grammars(language for _, language in wanted)
    with DefinitionCache(store.snippet_cache) as cache:
        known = cache.get(wanted)
        if cache.notice and notices is not None:
            notices.append(cache.notice)
        missing = [key for key in wanted if key not in known]
        blobs = (
            Blob(blob_id=blob_id, language=language, content=content)
            for (_, language), (blob_id, content) in zip(missing, source.read(key[0] for key in missing), strict=True)
        )
        for blob, parsed in parse_all(blobs, notices):
            key = (blob.blob_id, blob.language)
            known[key] = parsed
            if parsed.reason != PARSER_CRASHED:
                cache.put(key, parsed)
    return known, missing


def counts_by(table: pl.DataFrame, column: str) -> dict[str, int]:
    """Rows by value of a column, most frequent first."""
    return dict(sorted(Counter(table[column].to_list()).items(), key=lambda item: (-item[1], item[0])))


def _rows(
    repository: str, entries: list[Entry], parsed: Mapping[Key, Parsed], dropped: Counter[str]
) -> tuple[pl.DataFrame, int]:
    """The table, and how many definitions held a secret; files refused for their content are added to `dropped`."""
    columns: dict[str, list[Any]] = {name: [] for name in SNIPPET_SCHEMA}
    secrets = 0
    for entry in entries:
        language = language_of(entry.path) or ""
        file = parsed[entry.blob_id, language]
        secrets += file.secrets
        if file.reason:
            dropped[file.reason] += 1
        for definition in file.definitions:
            for name in COPIED_FIELDS:
                columns[name].append(getattr(definition, name))
            columns["definition_id"].append(definition_id_of(repository, entry.path, definition))
            columns["snippet_id"].append(snippet_id_of(language, definition.code))
            columns["path"].append(entry.path)
            columns["language"].append(language)
            columns["blob_id"].append(entry.blob_id)
            columns["is_test"].append(is_test(entry.path, language, definition.scope, definition.name))
    columns["repository"] = [repository] * len(columns["name"])
    return pl.DataFrame(columns, schema=dict(SNIPPET_SCHEMA)), secrets
