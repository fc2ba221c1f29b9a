"""Which functions a commit changed: the definitions of each touched file before and after, compared.

A function counts as changed when its code without white space and without its doc is another one; one that merely
moved does not, nor does the function around a changed inner function. Results are kept by commit id, so that a night
parses the commits of one day. Knows nothing of sides; what makes a subject a query, `subjects` knows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from embed_assets.files import write_file
from embed_assets.pairs.history import Commit, FileChange, History
from embed_assets.pairs.subjects import subject_query, written_by_bot
from embed_assets.pairs.versions import Place, Version, functions_of
from embed_assets.pairs.wording import Cleaned, fit_to_keep
from embed_assets.records import digest_of
from embed_assets.snippets.cache import cache_version
from embed_assets.snippets.entries import Entry
from embed_assets.snippets.filters import PathFilter
from embed_assets.snippets.languages import is_test, language_of
from embed_assets.snippets.parse import Blob, take_from_all

if TYPE_CHECKING:
    from embed_assets.snippets.git_source import GitSource

CHANGES_VERSION = "1"
"""Part of the cache's key: raise it whenever the same commit yields other changes."""
MOST_FUNCTIONS = 3
"""A subject that covers more functions describes none of them."""
MOST_FILES = 20
"""Commits that touch more source files are reorganisations; they are not parsed."""

CHANGE_SCHEMA: Mapping[str, Any] = {
    "commit_id": pl.String,
    "touched": pl.Int64,
    "path": pl.String,
    "language": pl.String,
    "scope": pl.String,
    "name": pl.String,
    "disambiguator": pl.String,
    "code": pl.String,
    "existed": pl.Boolean,
}
"""One row per changed function as the commit left it. A commit without any, or with too many, has one row with an
empty path: `touched` says how many there were."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangedFunction:
    """A function as a commit left it."""

    path: str
    language: str
    scope: str
    name: str
    disambiguator: str
    code: str
    existed: bool
    """False for one that the commit added: no tree before it holds it."""


@dataclass(frozen=True, kw_only=True)
class CommitQuery:
    """A commit whose subject asks for the one to three functions it changed."""

    commit: Commit
    text: str
    functions: tuple[ChangedFunction, ...]


_FileVersions = tuple[FileChange, str, Mapping[Place, Version], Mapping[Place, Version]]
"""A touched file, its language, its functions before and after."""


def commit_queries(
    source: "GitSource", history: History, *, paths: PathFilter, cache: Path, dropped: dict[str, int]
) -> list[CommitQuery]:
    """Every commit that makes a query, newest first.

    Args:
        source: where blobs are read from.
        history: of that source.
        paths: which files may enter.
        cache: folder of the results of earlier nights.
        dropped: reasons are counted in it.
    """
    asked: list[tuple[Commit, str]] = []
    for commit in history.commits:
        reason = unreadable(commit, paths)
        text, reason = ("", reason) if reason else _wording(commit)
        if reason:
            dropped[reason] = dropped.get(reason, 0) + 1
        else:
            asked.append((commit, text))
    changes = changed_functions(source, [commit for commit, _ in asked], paths=paths, cache=cache)
    queries = []
    for commit, text in asked:
        if commit.commit_id not in changes:
            dropped["commit_parser_crashed"] = dropped.get("commit_parser_crashed", 0) + 1
            continue
        touched, functions = changes[commit.commit_id]
        if not functions:
            reason = "commit_too_many_functions" if touched > MOST_FUNCTIONS else "commit_no_function"
            dropped[reason] = dropped.get(reason, 0) + 1
            continue
        queries.append(CommitQuery(commit=commit, text=text, functions=functions))
    return queries


def changed_functions(
    source: "GitSource", commits: Sequence[Commit], *, paths: PathFilter, cache: Path
) -> dict[str, tuple[int, tuple[ChangedFunction, ...]]]:
    """Commit id -> how many functions it touched, and those it left changed if they are one to three.

    A commit with a file that crashes the parser is missing, and is not remembered: lack of memory crashes it, too.
    """
    file = cache / f"{digest_of(source.name, CHANGES_VERSION, cache_version(), repr(paths))[:16]}.parquet"
    known = pl.read_parquet(file) if file.exists() else pl.DataFrame(schema=dict(CHANGE_SCHEMA))
    remembered = set(known["commit_id"].to_list())
    fresh = [commit for commit in commits if commit.commit_id not in remembered]
    if fresh:
        parsed = _parsed(source, fresh, paths)
        rows = [row for commit, versions in parsed if versions is not None for row in _rows(commit, versions)]
        known = pl.concat([known, pl.DataFrame(rows, schema=dict(CHANGE_SCHEMA), orient="row")])
        write_file(file, known.write_parquet)
    wanted = {commit.commit_id for commit in commits}
    changes: dict[str, tuple[int, tuple[ChangedFunction, ...]]] = {}
    for commit_id, touched, *values in known.iter_rows():
        if commit_id in wanted:
            function = () if not values[0] else (ChangedFunction(**dict(zip(_FUNCTION_FIELDS, values, strict=True))),)
            changes[commit_id] = (touched, changes.get(commit_id, (0, ()))[1] + function)
    return changes


_FUNCTION_FIELDS = tuple(CHANGE_SCHEMA)[2:]


def unreadable(commit: Commit, paths: PathFilter) -> str:
    """Why the functions that a commit changed are not looked for; empty when they are."""
    if len(commit.parents) != 1:
        return "commit_merge" if commit.parents else "commit_initial"
    files = sum(1 for change in commit.files if _language(change, paths))
    if not files:
        return "commit_no_source"
    return "commit_too_many_files" if files > MOST_FILES else ""


def _wording(commit: Commit) -> Cleaned:
    if written_by_bot(commit.author):
        return Cleaned("", "commit_by_bot")
    query = subject_query(commit.subject)
    return query if query.dropped else fit_to_keep(query.text)


def _language(change: FileChange, paths: PathFilter) -> str:
    """Language of a touched file that may enter and is no test; else empty."""
    language = language_of(change.path)
    if language is None or is_test(change.path, language):
        return ""
    entry = Entry(path=change.path, blob_id=change.blob_after, size=1)
    return "" if paths.reason(entry) else language


def _parsed(
    source: "GitSource", commits: Sequence[Commit], paths: PathFilter
) -> Iterator[tuple[Commit, list[_FileVersions] | None]]:
    """Each commit, oldest first, with the functions of its files before and after; None where the parser crashed.

    Every blob is parsed once, on all cores, in the order in which commits need it, and forgotten after its last use.
    """
    work = [
        (commit, [(change, language) for change in commit.files if (language := _language(change, paths))])
        for commit in reversed(commits)
    ]
    last_use = {
        (blob_id, language): place
        for place, (_, changes) in enumerate(work)
        for change, language in changes
        for blob_id in (change.blob_before, change.blob_after)
        if blob_id
    }
    arriving = _arriving(source, list(last_use))
    at_hand: dict[tuple[str, str], Mapping[Place, Version] | None] = {}

    def functions(blob_id: str, language: str) -> Mapping[Place, Version] | None:
        while blob_id and (blob_id, language) not in at_hand:
            key, found = next(arriving)
            at_hand[key] = found
        return at_hand[blob_id, language] if blob_id else {}

    for place, (commit, changes) in enumerate(work):
        versions = []
        for change, language in changes:
            before, after = functions(change.blob_before, language), functions(change.blob_after, language)
            if before is not None and after is not None:
                versions.append((change, language, before, after))
        yield commit, versions if len(versions) == len(changes) else None
        for key in [key for key in at_hand if last_use[key] <= place]:
            del at_hand[key]


def _arriving(
    source: "GitSource", keys: Sequence[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], Mapping[Place, Version] | None]]:
    contents = source.read(blob_id for blob_id, _ in keys)
    blobs = (
        Blob(blob_id=blob_id, language=language, content=content)
        for (_, language), (blob_id, content) in zip(keys, contents, strict=True)
    )
    for blob, found in take_from_all(blobs, functions_of):
        yield (blob.blob_id, blob.language), found


def _rows(commit: Commit, files: Iterable[_FileVersions]) -> list[tuple[Any, ...]]:
    changed: list[tuple[FileChange, str, Place, Version, bool]] = []
    added: list[tuple[FileChange, str, Place, Version, bool]] = []
    gone: list[str] = []
    for change, language, before, after in files:
        for place, version in after.items():
            if place not in before:
                added.append((change, language, place, version, False))
            elif before[place].content != version.content:
                changed.append((change, language, place, version, True))
        gone += [version.content for place, version in before.items() if place not in after]
    moved = set(gone) & {version.content for *_, version, _ in added}
    new = [row for row in added if row[3].content not in moved]
    touched = len(changed) + max(len(new), len([content for content in gone if content not in moved]))
    kept = changed + new
    if not 1 <= touched <= MOST_FUNCTIONS or not kept:
        return [(commit.commit_id, touched, "", "", "", "", "", "", False)]
    return [
        (commit.commit_id, touched, change.path, language, *place, version.code, existed)
        for change, language, place, version, existed in kept
    ]
