"""Sources that read who calls whom: a test and the function it tests, a documented caller and what it calls.

Off unless `pairs.sources` gives them a weight (docs/experiments.md says what they were worth). They only add rows to
learn from: a query that nobody wrote as one judges nothing. A name that more than one function bears is no answer.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import polars as pl

from embed_assets.pairs.corpus import Corpus, Function
from embed_assets.pairs.docs import doc_query
from embed_assets.pairs.sides import Sides
from embed_assets.pairs.sources import MOST_ANSWERS, Proposal
from embed_assets.pairs.wording import content_words, identifier_parts, says_more_than
from embed_assets.records import digest_of

LEAST_WORDS = 3
"""Content words of a test's name beyond its function's."""
LEAST_NAME_LETTERS = 4
"""Shorter names (`get`, `new`) are called everywhere and mean nothing by themselves."""

_CALL = re.compile(r"([^\W\d]\w*[!?]?)\s*\(")
_TEST_WORDS = frozenset({"test", "tests", "testing", "should", "spec", "case"})


def proposals_of_tests(
    tests: Iterable[pl.DataFrame], corpus: Corpus, sides: Sides, dropped: Counter[str]
) -> list[Proposal]:
    """What a test's name says beyond the function's name -> the function it calls and is named after.

    Args:
        tests: tables of SNIPPET_SCHEMA, one a repository.
    """
    by_name = _unique_names(corpus)
    proposals: list[Proposal] = []
    for table in tests:
        rows = table.filter(pl.col("is_test") & pl.col("kind").is_in(["function", "method"]))
        for repository, name, code in rows.select("repository", "name", "code").iter_rows():
            parts = [part.lower() for part in identifier_parts(name)]
            said = [part for part in parts if part not in _TEST_WORDS]
            tested = _named_after(said, _called(code, repository, by_name))
            text = " ".join(said)
            if tested is None:
                dropped["test_unmatched"] += 1
            elif len(content_words(text)) < LEAST_WORDS or not says_more_than(text, [tested.name]):
                dropped["test_repeats_name"] += 1
            else:
                proposals += _learnt("test", text, (tested,), sides)
    return proposals


def proposals_of_callers(corpus: Corpus, sides: Sides, dropped: Counter[str]) -> list[Proposal]:
    """What a caller's doc says -> the one to three functions of its repository that it calls."""
    by_name = _unique_names(corpus)
    proposals: list[Proposal] = []
    for caller in corpus.documents():
        text, _ = doc_query(caller.doc) if caller.doc else ("", "")
        called = [
            one for one in _called(caller.code, caller.repository, by_name) if one.snippet_id != caller.snippet_id
        ]
        if not text or not called:
            continue
        if len(called) > MOST_ANSWERS:
            dropped["caller_too_many_functions"] += 1
        elif sides.of_file(caller.repository, caller.path) == "train":  # The doc itself may judge.
            proposals += _learnt("caller", text, tuple(called), sides)
    return proposals


def _learnt(source: str, text: str, answers: tuple[Function, ...], sides: Sides) -> Iterator[Proposal]:
    """The proposal, with the answers whose files are learnt from; none if there is no such answer."""
    kept = tuple(one for one in answers if sides.of_file(one.repository, one.path) == "train")
    if kept:
        group_id = digest_of(kept[0].repository, kept[0].path)
        yield Proposal(
            source=source, split="train", query=text, answers=kept, repository=kept[0].repository, group_id=group_id
        )


def _unique_names(corpus: Corpus) -> Mapping[tuple[str, str], Function]:
    """(repository, name) -> the only function called so."""
    found: dict[tuple[str, str], Function] = {}
    ambiguous = set()
    for function in corpus.documents():
        key = (function.repository, function.name)
        if key in found:
            ambiguous.add(key)
        found[key] = function
    return {
        key: function for key, function in found.items() if key not in ambiguous and len(key[1]) >= LEAST_NAME_LETTERS
    }


def _called(code: str, repository: str, by_name: Mapping[tuple[str, str], Function]) -> list[Function]:
    names = dict.fromkeys(_CALL.findall(code))
    return [by_name[repository, name] for name in names if (repository, name) in by_name]


def _named_after(words: list[str], called: Iterable[Function]) -> Function | None:
    """The called function whose whole name a test's name holds; the longest such name."""
    fitting = []
    for function in called:
        parts = [part.lower() for part in identifier_parts(function.name)]
        places = range(len(words) - len(parts) + 1)
        if parts and any(words[place : place + len(parts)] == parts for place in places):
            fitting.append((len(parts), function.definition_id, function))
    return max(fitting)[2] if fitting else None
