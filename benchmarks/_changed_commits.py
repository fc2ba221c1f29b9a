"""A second count of what commits changed, by line numbers: hunks of `git log -U0` against the lines of definitions.

The product compares the contents of functions before and after. This asks git which lines differ and looks up whose
lines they are; only the extractor is shared. Two ways that agree are worth more than one.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embed_assets.pairs.changes import changed_functions, unreadable
from embed_assets.pairs.history import Commit, read_history
from embed_assets.pairs.subjects import subject_query, written_by_bot
from embed_assets.snippets.extract import Definition
from embed_assets.snippets.git_source import GitSource, open_repository
from embed_assets.snippets.languages import is_test, language_of
from embed_assets.snippets.parse import Blob, parse_all
from embed_assets.snippets.tree import tree_filter

NEWEST = 1_000
MOST_FUNCTIONS = 3
MORE_WORDS_THAN = 5

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_Ranges = list[tuple[int, int]]
_Names = set[tuple[str, str, str]]
"""Path, scope and name of functions."""


@dataclass
class _File:
    """One file of one commit: blobs before and after, and the lines that differ, 1-based, ends included."""

    path: str = ""
    blob_before: str = ""
    blob_after: str = ""
    before: _Ranges = field(default_factory=list)
    after: _Ranges = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ChangedCommits:
    """Counts among the newest commits that touch source other than tests."""

    commits: int
    by_lines: int
    """One to three non-test functions by hunks, and a subject of more than five words."""
    by_names: int
    """The same, where functions of one name count as one, whatever their file and scope."""
    by_outsider: int
    """By names, as somebody counts who looks at the files after each commit only: deleted lines lie in no function."""
    by_content: int
    """The same by the product's comparison of contents, before any rule of its own."""
    became_queries: int
    """Of `by_content`: what the product's rules let through, whatever the number of words."""
    refused: Mapping[str, int]
    """Of `by_content`: reason -> how many its rules refuse."""
    lines_only: Mapping[str, int]
    """Of `by_lines` and not `by_content`: reason -> how many."""
    content_only: int


def count_changed_commits(path: Path, cache: Path) -> ChangedCommits:
    source = GitSource(name=path.name, location=str(path), repo=open_repository(path, str(path)))
    with source:
        paths = tree_filter(source, source.entries())
        history = read_history(source, max_commits=10**6)
        touching = [
            commit
            for commit in history.commits
            if len(commit.parents) == 1 and any(_is_source(change.path) for change in commit.files)
        ][:NEWEST]
        wordy = [commit for commit in touching if len(commit.subject.split()) > MORE_WORDS_THAN]
        by_lines, by_outsider = _touched_by_lines(source, wordy)
        readable = [commit for commit in wordy if not unreadable(commit, paths)]
        contents = changed_functions(source, readable, paths=paths, cache=cache)
    by_content = {key: touched for key, (touched, _) in contents.items()}
    return _compared(touching, wordy, by_lines, by_outsider, by_content)


def _is_source(path: str) -> bool:
    language = language_of(path)
    return language is not None and not is_test(path, language)


def _compared(
    touching: list[Commit],
    wordy: list[Commit],
    touched: Mapping[str, _Names],
    by_outsider: Mapping[str, _Names],
    by_content: Mapping[str, int],
) -> ChangedCommits:
    lines = [commit for commit in wordy if 1 <= len(touched[commit.commit_id]) <= MOST_FUNCTIONS]
    names, outsider = (
        [len({name for *_, name in found[commit.commit_id]}) for commit in wordy] for found in (touched, by_outsider)
    )
    content = [commit for commit in wordy if 1 <= by_content.get(commit.commit_id, 0) <= MOST_FUNCTIONS]
    reasons = [
        "commit_by_bot" if written_by_bot(commit.author) else subject_query(commit.subject).dropped
        for commit in content
    ]
    both = {commit.commit_id for commit in lines} & {commit.commit_id for commit in content}
    lines_only = Counter(_why_not(by_content.get(commit.commit_id)) for commit in lines if commit.commit_id not in both)
    return ChangedCommits(
        commits=len(touching),
        by_lines=len(lines),
        by_names=sum(1 <= count <= MOST_FUNCTIONS for count in names),
        by_outsider=sum(1 <= count <= MOST_FUNCTIONS for count in outsider),
        by_content=len(content),
        became_queries=reasons.count(""),
        refused=dict(Counter(filter(None, reasons)).most_common()),
        lines_only=dict(lines_only.most_common()),
        content_only=len(content) - len(both),
    )


def _why_not(touched: int | None) -> str:
    if touched is None:
        return "files excluded or too many"
    return "more functions by content" if touched else "docs, comments or layout only"


def _touched_by_lines(source: GitSource, commits: list[Commit]) -> tuple[dict[str, _Names], dict[str, _Names]]:
    """Commit id -> non-test functions whose lines differ, before or after; and those whose lines are others after."""
    files = {commit.commit_id: list(_differing(source, commit)) for commit in commits}
    keys = {
        (blob_id, language_of(file.path) or "")
        for found in files.values()
        for file in found
        for blob_id in (file.blob_before, file.blob_after)
        if set(blob_id) - {"0"}
    }
    ordered = sorted(keys)
    contents = source.read(blob_id for blob_id, _ in ordered)
    blobs = (
        Blob(blob_id=blob_id, language=language, content=content)
        for (_, language), (blob_id, content) in zip(ordered, contents, strict=True)
    )
    definitions = {(blob.blob_id, blob.language): parsed.definitions for blob, parsed in parse_all(blobs)}
    touched: dict[str, _Names] = {}
    by_outsider: dict[str, _Names] = {}
    for commit_id, found in files.items():
        names, outsider = touched.setdefault(commit_id, set()), by_outsider.setdefault(commit_id, set())
        for file in found:
            language = language_of(file.path) or ""
            before, after = (
                definitions.get((blob_id, language), ()) for blob_id in (file.blob_before, file.blob_after)
            )
            later = _names(file.path, language, _innermost(after, file.after))
            names |= later | _names(file.path, language, _innermost(before, file.before))
            outsider |= later
    return touched, by_outsider


def _names(path: str, language: str, definitions: Iterable[Definition]) -> _Names:
    return {(path, one.scope, one.name) for one in definitions if not is_test(path, language, one.scope, one.name)}


def _innermost(definitions: tuple[Definition, ...], ranges: _Ranges) -> Iterator[Definition]:
    """The functions around the differing lines; of nested ones the innermost."""
    functions = [one for one in definitions if one.kind in ("function", "method")]
    for first, last in ranges:
        hit = [one for one in functions if one.start_line <= last and one.end_line >= first]
        for one in hit:
            inner = any(
                other is not one
                and one.start_line <= other.start_line
                and other.end_line <= one.end_line
                and other.start_line <= first
                and last <= other.end_line
                for other in hit
            )
            if not inner:
                yield one


def _differing(source: GitSource, commit: Commit) -> Iterator[_File]:
    touched = {path for change in commit.files for path in (change.path_before, change.path) if language_of(path)}
    options = [
        "-r",
        "-p",
        "-U0",
        "-M",
        "-w",
        "--full-index",
        "--no-color",
        "--no-ext-diff",
        "--no-textconv",
        "--root",
        "--no-commit-id",
    ]
    output: bytes = source.repo.git.execute(
        ["git", "diff-tree", *options, commit.commit_id, "--", *sorted(touched)], stdout_as_string=False
    )
    file = _File()
    for line in output.decode("utf-8", "replace").split("\n"):
        if line.startswith("diff --git "):
            if file.path and language_of(file.path):
                yield file
            file = _File(path=line.rpartition(" b/")[2])
        elif line.startswith("index "):
            file.blob_before, _, rest = line[6:].partition("..")
            file.blob_after = rest[:40]
        elif found := _HUNK.match(line):
            old, old_lines, new, new_lines = (int(value) if value else 1 for value in found.groups())
            if old_lines:
                file.before.append((old, old + old_lines - 1))
            if new_lines:
                file.after.append((new, new + new_lines - 1))
    if file.path and language_of(file.path):
        yield file
