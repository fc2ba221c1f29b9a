"""Keeps what is judged out of what is learnt: equal and near-equal queries, equal and near-equal functions.

Test wins over validation, and validation over training: the loser is dropped and counted, nothing changes sides. A
query loses as a whole when it resembles a query of the winning side; otherwise it loses those of its answers that the
test side asks for. `leakage` proves the result by other means.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from embed_assets.pairs.corpus import Corpus, Function
from embed_assets.pairs.near_duplicates import Shingles, code_shingles, near_pairs, query_shingles
from embed_assets.pairs.sources import MOST_ANSWERS, Proposal
from embed_assets.records import Split, query_digest

SPARED_SHARE = 0.1
"""Of the dated queries of a side, so many at most are given up for what they would cost the other side."""
SPARED_FROM = 2.0
"""Rows that a query given up must save, at least."""


@dataclass
class Sketches:
    """Shingles of code by content, and of queries by digest: each is cut once a night."""

    _code: dict[str, Shingles] = field(default_factory=dict)
    _queries: dict[str, Shingles] = field(default_factory=dict)

    def of_code(self, function: Function) -> Shingles:
        if function.snippet_id not in self._code:
            self._code[function.snippet_id] = code_shingles(function.code)
        return self._code[function.snippet_id]

    def of_query(self, text: str) -> Shingles:
        digest = query_digest(text)
        if digest not in self._queries:
            self._queries[digest] = query_shingles(text)
        return self._queries[digest]


def merge_repeated(proposals: Iterable[Proposal], dropped: Counter[str]) -> list[Proposal]:
    """One proposal for each query text of a source and side: answers united, or dropped when they are too many."""
    groups: dict[tuple[str, str, str], list[Proposal]] = {}
    for proposal in proposals:
        groups.setdefault((proposal.source, proposal.split, query_digest(proposal.query)), []).append(proposal)
    merged = []
    for (source, _, _), group in groups.items():
        answers = {answer.snippet_id: answer for proposal in group for answer in proposal.answers}
        if len(answers) > MOST_ANSWERS:
            dropped[f"{source}_repeated"] += len(group)
            continue
        newest = max(group, key=lambda proposal: (proposal.written_at, proposal.group_id))
        dropped[f"{source}_merged"] += len(group) - 1
        merged.append(replace(newest, answers=tuple(answers.values())))
    return merged


def without_learnt(proposals: Iterable[Proposal], learnt: Collection[str], dropped: Counter[str]) -> list[Proposal]:
    """Without test queries that stood on the training side on an earlier night (a renamed file brings them there)."""
    kept = []
    for proposal in proposals:
        if proposal.split == "test" and query_digest(proposal.query) in learnt:
            dropped["test_learnt_before"] += 1
        else:
            kept.append(proposal)
    return kept


def separate(
    proposals: Iterable[Proposal], corpus: Corpus, sketches: Sketches, dropped: Counter[str]
) -> list[Proposal]:
    """Drops from each side what stands too near to a side that wins over it.

    Nothing of the test side is learnt, neither query nor function; an answer that stands for copies asks for each of
    them, so that no other version of a copy is learnt either. Validation only says when to stop: it keeps its queries
    to itself, and asks for functions that training knows, as people will.
    """
    sides: dict[Split, list[Proposal]] = {"test": [], "validation": [], "train": []}
    for proposal in proposals:
        sides[proposal.split].append(proposal)
    sides["test"] = _sparing(sides["test"], [*sides["validation"], *sides["train"]], dropped)
    test = [replace(proposal, answers=_with_copies(proposal.answers, corpus)) for proposal in sides["test"]]
    sides["validation"] = _apart(sides["validation"], test, sketches, "leaks_into_test", dropped)
    sides["train"] = _apart(sides["train"], test, sketches, "leaks_into_test", dropped)
    validation = [replace(proposal, answers=()) for proposal in sides["validation"]]
    sides["train"] = _apart(sides["train"], validation, sketches, "leaks_into_validation", dropped)
    return [*sides["train"], *sides["validation"], *sides["test"]]


def _with_copies(answers: Sequence[Function], corpus: Corpus) -> tuple[Function, ...]:
    return (*answers, *(copy for answer in answers for copy in corpus.copies(answer)))


def _sparing(winning: Sequence[Proposal], losing: Sequence[Proposal], dropped: Counter[str]) -> list[Proposal]:
    """`winning` without the few dated queries that would cost the other side most.

    Some functions change all the time: four queries about one of them cost thirty rows to learn from. They are learnt
    and not judged by. Chosen by counting rows, before any model is asked.
    """
    rows = Counter(answer.definition_id for proposal in losing for answer in proposal.answers)
    asked: dict[str, set[int]] = {}
    for place, proposal in enumerate(winning):
        for answer in proposal.answers:
            asked.setdefault(answer.definition_id, set()).add(place)
    spared: set[int] = set()
    budget = int(SPARED_SHARE * sum(1 for proposal in winning if proposal.written_at))
    while True:
        best, best_value = frozenset[int](), SPARED_FROM
        for places in asked.values():
            gone = frozenset(places - spared)
            if not gone or len(gone) + len(spared) > budget or not all(winning[place].written_at for place in gone):
                continue
            answers = {answer.definition_id for place in gone for answer in winning[place].answers}
            freed = sum(rows[definition] for definition in answers if asked[definition] <= spared | gone)
            if freed / len(gone) > best_value:
                best, best_value = gone, freed / len(gone)
        if not best:
            break
        spared |= best
    for place in spared:
        dropped[f"{winning[place].source}_function_always_changing"] += 1
    return [proposal for place, proposal in enumerate(winning) if place not in spared]


def _apart(
    losing: Sequence[Proposal], winning: Sequence[Proposal], sketches: Sketches, reason: str, dropped: Counter[str]
) -> list[Proposal]:
    """`losing` without what resembles `winning`. Rows (query and answer) are counted."""
    queries = {query_digest(proposal.query) for proposal in winning}
    resembling = {
        place
        for _, place, _ in near_pairs(
            [sketches.of_query(proposal.query) for proposal in winning],
            [sketches.of_query(proposal.query) for proposal in losing],
        )
    }
    taken = taken_answers([answer for proposal in winning for answer in proposal.answers], losing, sketches)
    kept = []
    for place, proposal in enumerate(losing):
        answers = tuple(answer for answer in proposal.answers if answer.snippet_id not in taken)
        if place in resembling or query_digest(proposal.query) in queries:
            answers = ()
        dropped[reason] += len(proposal.answers) - len(answers)
        if answers:
            kept.append(replace(proposal, answers=answers))
    return kept


def taken_answers(winning: Sequence[Function], losing: Sequence[Proposal], sketches: Sketches) -> set[str]:
    """snippet_ids of answers of `losing` that are, or nearly are, functions of `winning`."""
    definitions = {function.definition_id for function in winning}
    contents = {function.snippet_id: function for function in winning}
    answers = {answer.snippet_id: answer for proposal in losing for answer in proposal.answers}
    taken = {
        answer.snippet_id for proposal in losing for answer in proposal.answers if answer.definition_id in definitions
    }
    taken |= answers.keys() & contents.keys()
    candidates = [answer for snippet_id, answer in answers.items() if snippet_id not in taken]
    taken |= {
        candidates[place].snippet_id
        for _, place, _ in near_pairs(
            [sketches.of_code(function) for function in contents.values()],
            [sketches.of_code(answer) for answer in candidates],
        )
    }
    return taken
