"""The sources of queries: docs, commits, issues, queries written elsewhere. Each is a plain function.

A source proposes a query with the functions that answer it and its side; it does not look at other queries. What stands
too near to what, `separation` decides. Counted reasons say what was not proposed.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embed_assets.pairs.changes import ChangedFunction, CommitQuery
from embed_assets.pairs.corpus import Corpus, Function, definition_id_at
from embed_assets.pairs.docs import doc_query
from embed_assets.pairs.history import History
from embed_assets.pairs.sides import Sides
from embed_assets.pairs.wording import says_more_than
from embed_assets.records import Split, digest_of
from embed_assets.snippets.extract import snippet_id_of

MOST_ANSWERS = 3
"""A query that more functions answer tells none of them from the others."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A query, and what answers it, before it is compared with the others."""

    source: str
    split: Split
    query: str
    answers: tuple[Function, ...]
    """On the training side as the author left them; on the test side documents of the corpus."""
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


def commit_proposals(
    repository: str,
    history: History,
    queries: Iterable[CommitQuery],
    corpus: Corpus,
    sides: Sides,
    dropped: Counter[str],
) -> list[Proposal]:
    """A commit's subject -> the functions it changed: for training as it left them, for the test as they stood at T."""
    proposals = []
    for query in queries:
        proposal = _changed(
            repository,
            history,
            query.commit.commit_id,
            query.functions,
            corpus,
            sides,
            source="commit",
            text=query.text,
            written_at=query.commit.committed_at,
            group_id=query.commit.commit_id,
        )
        if isinstance(proposal, str):
            dropped[f"commit_{proposal}"] += 1
        else:
            proposals.append(proposal)
    return proposals


def _changed(
    repository: str,
    history: History,
    commit_id: str,
    functions: Sequence[ChangedFunction],
    corpus: Corpus,
    sides: Sides,
    *,
    source: str,
    text: str,
    written_at: int,
    group_id: str,
) -> Proposal | str:
    """The proposal, or why there is none: `unmatched` (not in the tree at T), `repeats_name`."""
    at = sides.cutoff or END_OF_TIME
    placed = [(function, _function_at(repository, history, commit_id, function, at)) for function in functions]
    if sides.cutoff:
        split = sides.of_time(written_at)
    else:
        split = sides.of_files((repository, place.path) for _, place in placed)
    if split == "train":
        answers = [place for _, place in placed]
    else:
        found = [_in_corpus(corpus, function, place) for function, place in placed]
        answers = [match for match in found if match is not None]
    distinct = tuple({answer.snippet_id: answer for answer in answers}.values())
    if not distinct:
        return "unmatched"
    if not says_more_than(text, [answer.name for answer in distinct]):
        return "repeats_name"
    return Proposal(
        source=source,
        split=split,
        query=text,
        answers=distinct,
        repository=repository,
        group_id=group_id,
        written_at=written_at,
    )


END_OF_TIME = 2**62


def _function_at(repository: str, history: History, commit_id: str, function: ChangedFunction, at: int) -> Function:
    """The function as the commit left it; its identity is the one it has at the time `at`, under its name of then."""
    path = history.path_at(function.path, of=commit_id, at=at)
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
