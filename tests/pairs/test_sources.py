"""Where a changed function is looked up, and what is no answer."""

from collections import Counter

from embed_assets.pairs.changes import commit_queries
from embed_assets.pairs.corpus import Corpus, Function, corpus_of, definition_id_at
from embed_assets.pairs.history import read_history
from embed_assets.pairs.sides import Sides
from embed_assets.pairs.sources import Past, Proposal, commit_proposals
from embed_assets.snippets.filters import path_filter
from tests.pairs.written_history import DAY, START, WrittenHistory, function

SUBJECT = "Count the rows of empty tables correctly"
NOTHING = corpus_of([])


def proposals_of(written: WrittenHistory, sides: Sides, tree: Corpus = NOTHING) -> tuple[list[Proposal], Counter[str]]:
    dropped: Counter[str] = Counter()
    with written.source() as source:
        history = read_history(source, max_commits=100)
        queries = commit_queries(source, history, paths=path_filter(), cache=written.path / "changes", dropped=dropped)
    past = Past(repository="shop", history=history, corpus=tree, sides=sides)
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
    sides = Sides(cutoff=START + 2 * DAY, test_until=START + 2 * DAY)
    found, dropped = proposals_of(written, sides)
    assert [(one.query, one.split) for one in found] == [(SUBJECT, "train")]
    assert dropped["commit_waits"] == 1


def test_what_a_commit_changed_is_learnt_as_it_stands_at_the_cut_off(written: WrittenHistory) -> None:
    before = {"a.py": function("kept", "value += 1") + function("gone", "value += 5")}
    after = {"a.py": function("kept", "value += 2") + function("gone", "value += 6")}
    written.commit("Begin", before)
    written.commit(SUBJECT, after)
    written.commit("Later", {"a.py": function("kept", "value += 3")})
    definition_id = definition_id_at("shop", "a.py", "", "kept", "")
    kept = Function(
        definition_id=definition_id, snippet_id="now", repository="shop", path="a.py", language="python",
        scope="", name="kept", code=function("kept", "value += 3"),
    )  # fmt: skip
    tree = Corpus({definition_id: kept}, {"now": definition_id})
    [found], _ = proposals_of(written, Sides(cutoff=START + 9 * DAY, test_until=START + 9 * DAY), tree)
    assert found.split == "train"
    assert {answer.name: "value += 3" in answer.code for answer in found.answers} == {"kept": True, "gone": False}
