"""Where a changed function is looked up, and what is no answer."""

from collections import Counter

from embed_assets.pairs.changes import commit_queries
from embed_assets.pairs.corpus import corpus_of
from embed_assets.pairs.history import read_history
from embed_assets.pairs.sides import Sides
from embed_assets.pairs.sources import Past, Proposal, commit_proposals
from embed_assets.snippets.filters import path_filter
from tests.pairs.written_history import DAY, START, WrittenHistory, function

SUBJECT = "Count the rows of empty tables correctly"


def proposals_of(written: WrittenHistory, sides: Sides) -> tuple[list[Proposal], Counter[str]]:
    dropped: Counter[str] = Counter()
    with written.source() as source:
        history = read_history(source, max_commits=100)
        queries = commit_queries(source, history, paths=path_filter(), cache=written.path / "changes", dropped=dropped)
    past = Past(repository="shop", history=history, corpus=corpus_of([]), sides=sides)
    return commit_proposals(past, queries, dropped), dropped


def test_what_a_rename_shows_to_be_a_test_is_no_answer(written: WrittenHistory) -> None:
    check = function("counts", "value += 1") + function("stays", "value += 7")
    written.commit("Begin", {"checks.py": check, "a.py": function("one", "value += 1")})
    written.commit(SUBJECT, {"checks.py": check.replace("1", "2"), "a.py": function("one", "value += 2")})
    written.commit("Say how many rows a full table holds", {"checks.py": check.replace("1", "3")})
    written.commit("Move", {"checks.py": None, "tests/checks.py": check.replace("1", "3")})
    [found], dropped = proposals_of(written, Sides())
    assert [answer.name for answer in found.answers] == ["one"]
    assert dropped["commit_only_tests"] == 1


def test_a_commit_after_the_frozen_test_side_waits(written: WrittenHistory) -> None:
    written.commit("Begin", {"a.py": function("one", "value += 1")})
    written.commit(SUBJECT, {"a.py": function("one", "value += 2")})
    written.commit("Say how many rows a full table holds", {"a.py": function("one", "value += 3")})
    sides = Sides(cutoff=START + 2 * DAY, validation_from=START + 2 * DAY, test_until=START + 2 * DAY)
    found, dropped = proposals_of(written, sides)
    assert [(one.query, one.split) for one in found] == [(SUBJECT, "train")]
    assert dropped["commit_waits"] == 1
