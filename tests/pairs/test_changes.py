"""Which functions count as changed by a commit, and that a second night parses nothing."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from embed_assets.pairs import changes
from embed_assets.pairs.changes import CommitQuery, commit_queries
from embed_assets.pairs.history import read_history
from embed_assets.pairs.versions import Place, Version
from embed_assets.snippets.filters import path_filter
from embed_assets.snippets.parse import PARSER_CRASHED, Blob, Parsed, take_from_all
from tests.pairs.written_history import WrittenHistory, function

Found = dict[Place, Version] | None
Take = Callable[[Blob, Parsed], Found]
ONE = function("one", "value += 1")
TWO = function("two", "value += 2")
THREE = function("three", "value += 3")
FOUR = function("four", "value += 4")
SUBJECT = "Count the rows of empty tables correctly"


def queries_of(written: WrittenHistory, cache: Path) -> tuple[list[CommitQuery], Counter[str]]:
    dropped: Counter[str] = Counter()
    with written.source() as source:
        history = read_history(source, max_commits=100)
        found = commit_queries(source, history, paths=path_filter(), cache=cache, dropped=dropped)
    return found, dropped


def test_the_changed_function_is_found_as_it_stood_after_the_commit(written: WrittenHistory, tmp_path: Path) -> None:
    written.commit("Begin", {"a.py": ONE + TWO})
    written.commit(SUBJECT, {"a.py": ONE + function("two", "value += 22")})
    written.commit("Then something else changes in this function", {"a.py": ONE + function("two", "value += 222")})
    newest, query = queries_of(written, tmp_path)[0]
    assert query.text == SUBJECT
    [changed] = query.functions
    assert (changed.name, changed.path, changed.existed) == ("two", "a.py", True)
    assert "value += 22\n" in changed.code
    assert "value += 222\n" in newest.functions[0].code


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (ONE + TWO, TWO + ONE, "commit_no_function"),
        (ONE, ONE.replace("value += 1", "value  +=  1"), "commit_no_function"),
        (ONE, function("one", "value += 1", doc="Says now what it does."), "commit_no_function"),
        (ONE, ONE + "LIMIT = 10\n", "commit_no_function"),
        (ONE + TWO, ONE, "commit_no_function"),
        (
            ONE + TWO + THREE + FOUR,
            (ONE + TWO + THREE + FOUR).replace("+=", "-="),
            "commit_too_many_functions",
        ),
    ],
    ids=["moved", "white space", "doc only", "no function", "deleted", "four functions"],
)
def test_what_changes_no_function_or_too_many_is_dropped(
    written: WrittenHistory, tmp_path: Path, before: str, after: str, reason: str
) -> None:
    written.commit("Begin", {"a.py": before})
    written.commit(SUBJECT, {"a.py": after})
    found, dropped = queries_of(written, tmp_path)
    assert found == []
    assert dropped[reason] == 1


def test_a_function_moved_to_another_file_is_no_change(written: WrittenHistory, tmp_path: Path) -> None:
    written.commit("Begin", {"a.py": ONE + TWO, "b.py": THREE})
    written.commit(SUBJECT, {"a.py": ONE, "b.py": THREE.replace("3", "33") + TWO})
    [query] = queries_of(written, tmp_path)[0]
    assert [changed.name for changed in query.functions] == ["three"]


def test_an_added_function_is_marked_as_new(written: WrittenHistory, tmp_path: Path) -> None:
    written.commit("Begin", {"a.py": ONE})
    written.commit(SUBJECT, {"a.py": ONE + TWO})
    [query] = queries_of(written, tmp_path)[0]
    assert [(changed.name, changed.existed) for changed in query.functions] == [("two", False)]


def test_the_function_around_a_changed_inner_one_did_not_change(written: WrittenHistory, tmp_path: Path) -> None:
    outer = "def outer(value):\n    def inner(row):\n        return row + 1\n\n    return inner(value)\n"
    written.commit("Begin", {"a.py": outer})
    written.commit(SUBJECT, {"a.py": outer.replace("row + 1", "row + 2")})
    [query] = queries_of(written, tmp_path)[0]
    assert [changed.name for changed in query.functions] == ["inner"]


def test_tests_and_excluded_files_do_not_count(written: WrittenHistory, tmp_path: Path) -> None:
    written.commit("Begin", {"a.py": ONE, "tests/test_a.py": TWO, "vendor/b.py": THREE})
    changed = {"tests/test_a.py": TWO.replace("2", "22"), "vendor/b.py": THREE.replace("3", "33")}
    written.commit(SUBJECT, {"a.py": ONE.replace("1", "11"), **changed})
    written.commit("Test the rows of empty tables again", {"tests/test_a.py": TWO})
    found, dropped = queries_of(written, tmp_path)
    assert [changed.name for query in found for changed in query.functions] == ["one"]
    assert dropped["commit_no_source"] == 1


def test_merges_bots_and_the_first_commit_are_counted(written: WrittenHistory, tmp_path: Path) -> None:
    base = written.commit("Begin", {"a.py": ONE})
    bot = written.commit(
        SUBJECT, {"a.py": TWO}, author="dependabot[bot] <bot@users.noreply.github.com>", parents=(base,)
    )
    other = written.commit("Other", {"b.txt": "x"}, parents=(base,))
    written.commit("Merge branch 'bot'", {"a.py": TWO}, parents=(other, bot))
    found, dropped = queries_of(written, tmp_path)
    assert found == []
    assert dropped == {"commit_initial": 1, "commit_by_bot": 1, "commit_no_source": 1, "commit_merge": 1}


def test_a_renamed_file_is_compared_with_its_former_self(written: WrittenHistory, tmp_path: Path) -> None:
    many = "".join(function(f"f{number}", f"value += {number}") for number in range(8))
    written.commit("Begin", {"a.py": many})
    written.commit(SUBJECT, {"a.py": None, "b.py": many.replace("value += 7", "value += 77")})
    [query] = queries_of(written, tmp_path)[0]
    assert [(changed.name, changed.path, changed.existed) for changed in query.functions] == [("f7", "b.py", True)]


def test_a_definition_with_a_secret_is_no_answer(written: WrittenHistory, tmp_path: Path) -> None:
    secret = function("one", 'api_key = "AKIA' + "QWERTYUIOPASDFGH" + '"')
    written.commit("Begin", {"a.py": TWO})
    written.commit(SUBJECT, {"a.py": TWO.replace("2", "22") + secret})
    [query] = queries_of(written, tmp_path)[0]
    assert [changed.name for changed in query.functions] == ["two"]


def test_a_second_night_parses_only_new_commits(
    written: WrittenHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written.commit("Begin", {"a.py": ONE})
    for number in range(5):
        written.commit(f"{SUBJECT} step {number}", {"a.py": function("one", f"value += {100 + number}")})
    first, _ = queries_of(written, tmp_path)
    parsed: list[str] = []

    def counted(blobs: Iterable[Blob], take: Take) -> Iterator[tuple[Blob, Found]]:
        for blob, found in take_from_all(blobs, take):
            parsed.append(blob.blob_id)
            yield blob, found

    monkeypatch.setattr(changes, "take_from_all", counted)
    again, _ = queries_of(written, tmp_path)
    assert again == first and parsed == []
    written.commit("Say how many rows a full table holds", {"a.py": function("one", "value += 999")})
    third, _ = queries_of(written, tmp_path)
    assert third[1:] == first
    assert len(parsed) == 2


def test_a_crash_of_the_parser_is_counted_and_tried_again(
    written: WrittenHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of the commit: lack of memory crashes a parser, too."""
    written.commit("Begin", {"a.py": ONE, "b.py": TWO})
    written.commit(SUBJECT, {"a.py": function("one", "value += 100")})
    written.commit("Say how many rows a full table holds", {"b.py": function("two", "value += 200")})
    crashing = b"value += 100"

    def crashes(blobs: Iterable[Blob], take: Take) -> Iterator[tuple[Blob, Found]]:
        for blob, found in take_from_all(blobs, take):
            yield blob, take(blob, Parsed(reason=PARSER_CRASHED)) if crashing in blob.content else found

    monkeypatch.setattr(changes, "take_from_all", crashes)
    found, dropped = queries_of(written, tmp_path)
    assert [query.functions[0].name for query in found] == ["two"]
    assert dropped["commit_parser_crashed"] == 1 and "commit_no_function" not in dropped
    monkeypatch.setattr(changes, "take_from_all", take_from_all)
    again, dropped = queries_of(written, tmp_path)
    assert [query.functions[0].name for query in again] == ["two", "one"]
    assert "commit_parser_crashed" not in dropped
