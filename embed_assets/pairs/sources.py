"""The sources of queries that a repository holds: docs, commits, issues. Each is a plain function.

A source proposes a query with the functions that answer it and its side; it does not look at other queries. What stands
too near to what, `separation` decides. Counted reasons say what was not proposed.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embed_assets.pairs.changes import ChangedFunction, CommitQuery
from embed_assets.pairs.corpus import Corpus, Function, definition_id_at
from embed_assets.pairs.docs import doc_query
from embed_assets.pairs.history import Commit, History
from embed_assets.pairs.sides import Sides
from embed_assets.pairs.wording import says_more_than
from embed_assets.records import Split, digest_of
from embed_assets.snippets.extract import snippet_id_of
from embed_assets.snippets.languages import is_test

MOST_ANSWERS = 3
"""A query that more functions answer tells none of them from the others."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A query, and what answers it, before it is compared with the others."""

    source: str
    split: Split
    query: str
    answers: tuple[Function, ...]
    """Documents of the corpus; on the training side, where it no longer holds one, as the author left it."""
    repository: str
    group_id: str
    written_at: int = 0
    weight: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(answer.name for answer in self.answers)


def docstring_proposals(corpus: Corpus, sides: Sides, dropped: Counter[str]) -> list[Proposal]:
    """What a function's doc says, in one paragraph -> the function. One per content: copies bring their doc once."""
    proposals = []
    for function in corpus.documents():
        if not function.doc:
            continue
        text, reason = doc_query(function.doc)
        if text and not says_more_than(text, [function.name]):
            reason = "doc_repeats_name"
        if reason:
            dropped[reason] += 1
            continue
        proposals.append(
            Proposal(
                source="docstring",
                split=sides.of_file(function.repository, function.path),
                query=text,
                answers=(function,),
                repository=function.repository,
                group_id=digest_of(function.repository, function.path),
            )
        )
    return proposals


@dataclass(frozen=True, kw_only=True)
class AnsweredIssue:
    """An issue's query, and what each of its commits changed."""

    issue_id: str
    text: str
    changes: tuple[tuple[Commit, tuple[ChangedFunction, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Past:
    """What answers to a change are looked up in."""

    repository: str
    history: History
    corpus: Corpus
    sides: Sides


def commit_proposals(past: Past, queries: Iterable[CommitQuery], dropped: Counter[str]) -> list[Proposal]:
    """A commit's subject -> the functions it changed, as they stand at T; those gone by then are learnt as left."""
    found = (
        _changed(past, "commit", query.text, [(query.commit, query.functions)], query.commit.commit_id)
        for query in queries
    )
    return _counted(found, dropped)


def issue_proposals(past: Past, issues: Iterable[AnsweredIssue], dropped: Counter[str]) -> list[Proposal]:
    """An issue's words -> the functions that its commits changed; its side is that of the newest of them."""
    found = (_changed(past, "issue", issue.text, issue.changes, issue.issue_id) for issue in issues)
    return _counted(found, dropped)


def _counted(found: Iterable[Proposal | str], dropped: Counter[str]) -> list[Proposal]:
    proposals = []
    for proposal in found:
        if isinstance(proposal, str):
            dropped[proposal] += 1
        else:
            proposals.append(proposal)
    return proposals


def _changed(
    past: Past,
    source: str,
    text: str,
    changes: Sequence[tuple[Commit, tuple[ChangedFunction, ...]]],
    group_id: str,
) -> Proposal | str:
    """The proposal, or why there is none: what changed is known for a test by the path it has at T, it waits for the
    next T, is not in the tree at T, has too many functions, or only their names are said."""
    written_at = max(commit.committed_at for commit, _ in changes)
    placed: dict[str, tuple[ChangedFunction, Function]] = {}
    for commit, functions in sorted(changes, key=lambda change: change[0].committed_at):
        for function in functions:
            place = _function_at(past, commit, function)
            if not is_test(place.path, place.language, place.scope, place.name):
                placed[place.definition_id] = (function, place)
    if not placed:
        return f"{source}_only_tests"
    split = (
        past.sides.of_time(written_at)
        if past.sides.cutoff
        else past.sides.of_files((past.repository, place.path) for _, place in placed.values())
    )
    if split is None:
        return f"{source}_waits"
    if split == "train":
        # As people will find it, if it is still there: measured better than as the commit left it.
        answers = [past.corpus.functions.get(place.definition_id, place) for _, place in placed.values()]
    else:
        matches = [_in_corpus(past.corpus, function, place) for function, place in placed.values()]
        answers = [match for match in matches if match is not None]
    distinct = tuple({answer.snippet_id: answer for answer in answers}.values())
    if not distinct:
        return f"{source}_unmatched"
    if len(distinct) > MOST_ANSWERS:
        return f"{source}_too_many_functions"
    if not says_more_than(text, [answer.name for answer in distinct]):
        return f"{source}_repeats_name"
    return Proposal(
        source=source,
        split=split,
        query=text,
        answers=distinct,
        repository=past.repository,
        group_id=group_id,
        written_at=written_at,
    )


END_OF_TIME = 2**62


def _function_at(past: Past, commit: Commit, function: ChangedFunction) -> Function:
    """The function as the commit left it; its identity is the one it has at T, under its name of then."""
    path = past.history.path_at(function.path, of=commit.commit_id, at=past.sides.cutoff or END_OF_TIME)
    repository = past.repository
    return Function(
        definition_id=definition_id_at(repository, path, function.scope, function.name, function.disambiguator),
        snippet_id=snippet_id_of(function.language, function.code),
        repository=repository,
        path=path,
        language=function.language,
        scope=function.scope,
        name=function.name,
        code=function.code,
    )


def _in_corpus(corpus: Corpus, function: ChangedFunction, place: Function) -> Function | None:
    """The document of the function in the tree at T, by its id, else by scope and name if only one has them.

    A function that the commit added is in no tree before it: its name alone would find a stranger.
    """
    match = corpus.functions.get(place.definition_id)
    if match is None and function.existed:
        namesakes = corpus.by_name.get((place.repository, place.scope, place.name), [])
        match = namesakes[0] if len(namesakes) == 1 and namesakes[0].language == place.language else None
    return corpus.representative(match) if match is not None else None
