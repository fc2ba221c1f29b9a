"""Queries that people wrote elsewhere: issues and pull requests of a repository, and a file of one's own queries.

Both are JSON lines. An issue names the commits that closed it; what they changed is its answer. A query of one's own
names the definition: `query`, `repository`, `path`, `name`, and `scope` where the name alone is not unique there.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.files import StoreError, read_documents
from embed_assets.pairs.changes import changed_functions, unreadable
from embed_assets.pairs.corpus import Corpus
from embed_assets.pairs.history import Commit, History
from embed_assets.pairs.manifest import PairsError
from embed_assets.pairs.sides import Sides
from embed_assets.pairs.sources import MOST_ANSWERS, AnsweredIssue, Proposal
from embed_assets.pairs.subjects import subject_query
from embed_assets.pairs.wording import Cleaned, fit_to_keep, one_line
from embed_assets.records import digest_of
from embed_assets.snippets.filters import PathFilter

if TYPE_CHECKING:
    from embed_assets.snippets.git_source import GitSource

MOST_SENTENCE_WORDS = 40
LEAST_COMMIT_LETTERS = 7
"""Shorter abbreviations of a commit id are not looked up."""

_CODE_BLOCK = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|<!--.*?-->|^[ \t]*(?:#+|>)[^\n]*$", re.DOTALL | re.MULTILINE
)
_SENTENCE = re.compile(r"(.+?[.!?])(?:\s|$)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Issue:
    """An issue or pull request: what people really asked for, and the commits that answered."""

    issue_id: str
    title: str
    body: str
    commits: tuple[str, ...]
    """Commit ids, abbreviated or not."""


def read_issues(path: Path) -> list[Issue]:
    """
    Raises:
        PairsError: the file cannot be read, or a line lacks `id`, `title` or `commits`.
    """
    issues = []
    for where, line in _json_lines(path):
        commits = line.get("commits")
        if not isinstance(line.get("title"), str) or "id" not in line or not isinstance(commits, list):
            raise PairsError(f"{where}: an issue needs `id`, `title` and `commits` (a list), found {sorted(line)}")
        if any(not isinstance(commit, str) or len(commit) < LEAST_COMMIT_LETTERS for commit in commits):
            raise PairsError(
                f"{where}: `commits` must hold commit ids of at least {LEAST_COMMIT_LETTERS} letters, found {commits}"
            )
        issues.append(
            Issue(
                issue_id=str(line["id"]),
                title=line["title"],
                body=str(line.get("body") or ""),
                commits=tuple(commit.lower() for commit in commits),
            )
        )
    return issues


def issue_query(issue: Issue) -> Cleaned:
    """The title, cleaned as a subject is, and the first sentence of the body if it adds words of its own."""
    text, reason = subject_query(issue.title)
    if reason:
        return Cleaned("", reason.replace("subject", "issue"))
    sentence = _SENTENCE.match(one_line(_CODE_BLOCK.sub(" ", issue.body)))
    added = sentence[1] if sentence and 4 <= len(sentence[1].split()) <= MOST_SENTENCE_WORDS else ""
    return fit_to_keep(f"{text}. {added}" if added and added.rstrip(".").lower() != text.lower() else text)


def answered_issues(
    source: "GitSource", history: History, file: Path, *, paths: PathFilter, cache: Path, dropped: Counter[str]
) -> list[AnsweredIssue]:
    """Each issue that makes a query, with the functions that its commits changed.

    Raises:
        PairsError: the file cannot be read, or is none of issues.
    """
    commits = {commit.commit_id: commit for commit in history.commits}
    known = sorted(commits)
    asked: list[tuple[Issue, str, list[Commit]]] = []
    for issue in read_issues(file):
        text, reason = issue_query(issue)
        named = [commits[commit_id] for commit_id in matching(issue.commits, known)]
        readable = [commit for commit in named if not unreadable(commit, paths)]
        if reason or not readable:
            dropped[reason or ("issue_no_source" if named else "issue_commit_unknown")] += 1
        else:
            asked.append((issue, text, readable))
    wanted = list({commit.commit_id: commit for _, _, readable in asked for commit in readable}.values())
    wanted.sort(key=lambda commit: commit.committed_at, reverse=True)
    changes = changed_functions(source, wanted, paths=paths, cache=cache)
    answered = []
    for issue, text, readable in asked:
        left = [(commit, changes.get(commit.commit_id, (0, ()))[1]) for commit in readable]
        found = [(commit, functions) for commit, functions in left if functions]
        if found:
            answered.append(AnsweredIssue(issue_id=issue.issue_id, text=text, changes=tuple(found)))
        else:
            dropped["issue_no_function"] += 1
    return answered


def written_proposals(path: Path, corpus: Corpus, sides: Sides, dropped: Counter[str]) -> list[Proposal]:
    """The queries of `pairs.queries_file`, each with the definitions it names; sides go by their files.

    Raises:
        PairsError: the file cannot be read, or a line lacks `query`, `repository`, `path` or `name`.
    """
    proposals = []
    for where, line in _json_lines(path):
        for key in ("query", "repository", "path", "name"):
            if not isinstance(line.get(key), str) or not line[key].strip():
                raise PairsError(f"{where}: `{key}` must be a text that is not empty, found {line.get(key)!r}")
        text, reason = fit_to_keep(one_line(line["query"]))
        named = [
            function
            for function in corpus.by_file.get((line["repository"], line["path"]), ())
            if function.name == line["name"] and line.get("scope") in (None, function.scope)
        ]
        answers = {found.snippet_id: found for found in map(corpus.representative, named)}
        if reason or not 1 <= len(answers) <= MOST_ANSWERS:
            dropped[reason or ("written_ambiguous" if answers else "written_unmatched")] += 1
            continue
        proposals.append(
            Proposal(
                source="written",
                split=sides.of_file(line["repository"], line["path"]),
                query=text,
                answers=tuple(answers.values()),
                repository=line["repository"],
                group_id=digest_of(line["repository"], line["path"]),
            )
        )
    return proposals


def matching(commits: Sequence[str], known: Sequence[str]) -> list[str]:
    """The full ids among `known` (sorted) that `commits` abbreviate without doubt."""
    found = []
    for short in commits:
        place = bisect_left(known, short)
        hits = [commit for commit in known[place : place + 2] if commit.startswith(short)]
        found += hits if len(hits) == 1 else []
    return list(dict.fromkeys(found))


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        found = read_documents(path, malformed=PairsError)
    except StoreError as error:
        raise PairsError(str(error)) from error
    for where, document in found:
        if not isinstance(document, dict):
            raise PairsError(f"{where} must be an object, found {type(document).__name__}")
        yield where, document
