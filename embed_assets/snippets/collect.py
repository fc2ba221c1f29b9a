"""From the configured repositories to the table of snippets and its manifest.

One bad repository does not lose the night: it is named in the manifest, and the others go on. Knows nothing of
history and pairs.
"""

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from embed_assets.files import read_json, write_file, write_json
from embed_assets.records import digest_of
from embed_assets.settings import Settings
from embed_assets.snippets.entries import RepositoryError
from embed_assets.snippets.grammars import require_grammars
from embed_assets.snippets.languages import LANGUAGES
from embed_assets.snippets.repositories import open_source
from embed_assets.snippets.tree import TreeCounts, counts_by, snippets_at
from embed_assets.store import Store

__all__ = [
    "SnippetsError",
    "SnippetsManifest",
    "TreeCounts",
    "collect_snippets",
    "deduplicated",
    "read_manifest",
    "snippets_at",
    "table_digest",
]


class SnippetsError(RuntimeError):
    """No repository gave a snippet; the message says why, for each."""


@dataclass(frozen=True, kw_only=True)
class SnippetsManifest:
    """What a night collected, as `snippets.json` beside the table."""

    digest: str
    """Of the table: equal digests mean equal snippets."""
    snippets: int
    """Rows of the table, duplicates removed."""
    documented: int
    duplicates: int
    by_language: Mapping[str, int]
    documented_by_language: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int]
    repositories: Mapping[str, TreeCounts]
    failed: Mapping[str, str]
    """Repository -> why nothing could be read from it."""
    notices: tuple[str, ...] = field(default_factory=tuple)
    grammars: Mapping[str, str] = field(default_factory=dict)
    """Language -> wheel and version of the grammar that reads it: those of the whole table, or there is no manifest."""
    seconds: float
    bytes: int
    megabytes_per_second: float
    """Source bytes through the stage, cached ones included, over its seconds."""
    peak_memory_megabytes: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "SnippetsManifest":
        values = dict(document)
        values["repositories"] = {name: TreeCounts(**counts) for name, counts in values["repositories"].items()}
        values["notices"] = tuple(values["notices"])
        return cls(**values)


def collect_snippets(settings: Settings, store: Store) -> SnippetsManifest:
    """Reads every configured repository, writes `store.snippets` and then its manifest.

    Raises:
        SnippetsError: no repository is configured, or none gave a snippet.
        GrammarError: a grammar of the table is missing, or one that is needed does not fit.
    """
    grammars = require_grammars()
    if not settings.repositories:
        raise SnippetsError("no repository is configured; write a settings file with `embed-assets init` and name one")
    started = time.monotonic()
    tables: list[pl.DataFrame] = []
    counts: dict[str, TreeCounts] = {}
    failed: dict[str, str] = {}
    notices: list[str] = []
    for repository in settings.repositories:
        try:
            with open_source(repository, store) as source:
                notices += [source.notice] if source.notice else []
                table, found = snippets_at(source, store, notices=notices)
        except RepositoryError as error:
            failed[repository.name] = str(error)
            continue
        counts[repository.name] = found
        tables.append(table)
        if table.is_empty():
            notices.append(f"{repository.name}: {_nothing_found(found)}")
    if not any(table.height for table in tables):
        reasons = [f"{name}: {reason}" for name, reason in failed.items()]
        reasons += [f"{name}: {_nothing_found(found)}" for name, found in counts.items()]
        raise SnippetsError("no repository gave a snippet. " + " | ".join(reasons))
    table, duplicates = deduplicated(pl.concat(tables))
    write_file(store.snippets, lambda path: table.write_parquet(path, compression="zstd"))
    manifest = _manifest(table, duplicates, counts, failed, notices, grammars, time.monotonic() - started)
    write_json(store.snippets_manifest, manifest.to_json())
    return manifest


def read_manifest(store: Store) -> SnippetsManifest:
    """
    Raises:
        StoreError: nothing has been collected yet, or the manifest is damaged.
    """
    return SnippetsManifest.from_json(read_json(store.snippets_manifest))


def deduplicated(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """One row per content, the first in (repository, path, line) order; and how many were taken out."""
    ordered = table.sort("repository", "path", "start_line", "definition_id", maintain_order=True)
    unique = ordered.unique("snippet_id", keep="first", maintain_order=True)
    return unique, table.height - unique.height


def table_digest(table: pl.DataFrame) -> str:
    """Digest of which definitions a table holds with which content and documentation, whatever their order."""
    columns = (table[name].to_list() for name in ("definition_id", "snippet_id", "doc"))
    return digest_of(*(part for row in sorted(zip(*columns, strict=True)) for part in row))


def _nothing_found(found: TreeCounts) -> str:
    languages = ", ".join(language.name for language in LANGUAGES)
    dropped = ", ".join(f"{reason} {count}" for reason, count in found.dropped.items()) or "nothing"
    return f"no definition in {found.files} files (left out: {dropped}); known languages are {languages}"


def _manifest(
    table: pl.DataFrame,
    duplicates: int,
    counts: Mapping[str, TreeCounts],
    failed: Mapping[str, str],
    notices: Iterable[str],
    grammars: Mapping[str, str],
    seconds: float,
) -> SnippetsManifest:
    dropped: Counter[str] = Counter()
    for found in counts.values():
        dropped.update(found.dropped)
    documented = table.filter(pl.col("doc") != "")
    size = sum(found.bytes for found in counts.values())
    return SnippetsManifest(
        digest=table_digest(table),
        snippets=table.height,
        documented=documented.height,
        duplicates=duplicates,
        by_language=counts_by(table, "language"),
        documented_by_language=counts_by(documented, "language"),
        dropped=dict(sorted(dropped.items())),
        repositories=dict(counts),
        failed=failed,
        notices=tuple(dict.fromkeys(notices)),
        grammars=grammars,
        seconds=round(seconds, 3),
        bytes=size,
        megabytes_per_second=round(size / 1e6 / max(seconds, 1e-9), 3),
        peak_memory_megabytes=round(_peak_memory_bytes() / 1e6, 1),
    )


def _peak_memory_bytes() -> int:
    scale = 1 if sys.platform == "darwin" else 1024  # Linux counts kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
