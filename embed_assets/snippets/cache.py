"""Parsed files by (blob id, language), so that a night parses only what changed.

One SQLite file per version of the extractor, the table of languages and the grammars: when one of them changes, the
cache starts anew. It holds nothing that cannot be had again, so a damaged one is replaced with a notice.
"""

import importlib.metadata
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

from embed_assets.files import file_sha256
from embed_assets.records import digest_of
from embed_assets.snippets import docs, extract, filters, names, parts, secrets, syntax
from embed_assets.snippets.extract import EXTRACTOR_VERSION, Definition
from embed_assets.snippets.languages import LANGUAGES
from embed_assets.snippets.parse import Parsed

Key = tuple[str, str]
"""Blob id and language."""
KEYS_AT_ONCE = 500
COMMIT_EVERY = 2_000
BUSY_SECONDS = 30.0
_NAMES = tuple(field.name for field in fields(Definition))
_FIELDS = attrgetter(*_NAMES)
_DAMAGE = (sqlite3.DatabaseError, zlib.error, ValueError, TypeError)


class DefinitionCache:
    """An open cache. Several processes may use one at a time; close it after use."""

    def __init__(self, folder: Path) -> None:
        """Opens the cache in `folder`; `notice` says so when a damaged one had to be replaced."""
        self.notice = ""
        self._path = folder / f"definitions-{cache_version()}.sqlite"
        folder.mkdir(parents=True, exist_ok=True)
        for outdated in folder.glob("definitions-*.sqlite*"):
            if not outdated.name.startswith(self._path.name):
                outdated.unlink(missing_ok=True)
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            self._rebuild(error)
        self._unsaved = 0

    def get(self, keys: Iterable[Key]) -> dict[Key, Parsed]:
        """What is known of the files asked for; the others are absent."""
        try:
            return dict(self._read(sorted(set(keys))))
        except _DAMAGE as error:
            self._rebuild(error)
            return {}

    def put(self, key: Key, parsed: Parsed) -> None:
        """Remembers one file. Saved in batches, and when the cache is closed."""
        rows = [_FIELDS(definition) for definition in parsed.definitions]
        document = json.dumps([parsed.reason, parsed.secrets, rows], ensure_ascii=False, separators=(",", ":"))
        payload = zlib.compress(document.encode("utf-8"), 1)
        self._connection.execute("INSERT OR REPLACE INTO parsed VALUES (?, ?, ?)", (*key, payload))
        self._unsaved += 1
        if self._unsaved >= COMMIT_EVERY:
            self._connection.commit()
            self._unsaved = 0

    def close(self) -> None:
        self._connection.commit()
        self._connection.close()

    def __enter__(self) -> "DefinitionCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS parsed "
                "(blob_id TEXT, language TEXT, payload BLOB NOT NULL, PRIMARY KEY (blob_id, language))"
            )
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def _read(self, keys: list[Key]) -> Iterator[tuple[Key, Parsed]]:
        wanted = set(keys)
        for start in range(0, len(keys), KEYS_AT_ONCE):
            blob_ids = [blob_id for blob_id, _ in keys[start : start + KEYS_AT_ONCE]]
            marks = ",".join("?" * len(blob_ids))
            query = f"SELECT blob_id, language, payload FROM parsed WHERE blob_id IN ({marks})"
            for blob_id, language, payload in self._connection.execute(query, blob_ids):
                if (blob_id, language) in wanted:
                    yield (blob_id, language), _parsed(payload)

    def _rebuild(self, error: Exception) -> None:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise error
        self.notice = f"the cache of parsed files was damaged ({error}) and is rebuilt: {self._path}"
        if hasattr(self, "_connection"):
            self._connection.close()
        for part in self._path.parent.glob(f"{self._path.name}*"):
            part.unlink(missing_ok=True)
        self._connection = self._open()
        self._unsaved = 0


def cache_version() -> str:
    """Digest of everything but the file that decides what is extracted from it."""
    wheels = sorted({language.wheel for language in LANGUAGES} | {"tree-sitter"})
    rules = [
        file_sha256(Path(str(module.__file__))) for module in (docs, extract, filters, names, parts, secrets, syntax)
    ]
    versions = [importlib.metadata.version(wheel) for wheel in wheels]
    return digest_of(EXTRACTOR_VERSION, *(repr(language) for language in LANGUAGES), *rules, *versions)[:12]


def _parsed(payload: bytes) -> Parsed:
    reason, secrets_dropped, rows = json.loads(zlib.decompress(payload))
    definitions = tuple(
        Definition(**dict(zip(_NAMES, (*values, tuple(divided)), strict=True))) for *values, divided in rows
    )
    return Parsed(reason=reason, definitions=definitions, secrets=secrets_dropped)
