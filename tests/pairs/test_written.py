"""Issues and queries written elsewhere: read strictly, matched without doubt, on the side of what they ask for."""

import json
from pathlib import Path

import polars as pl
import pytest

from embed_assets.evaluation.benchmark import read_benchmark
from embed_assets.files import read_json
from embed_assets.pairs.build import build_pairs
from embed_assets.pairs.leakage import find_leaks
from embed_assets.pairs.manifest import PairsError
from embed_assets.pairs.written import Issue, issue_query, matching, read_issues
from embed_assets.settings import Settings
from embed_assets.snippets.git_source import GitSource
from embed_assets.store import Store
from tests.pairs.shop import Shop, settings_for
from tests.pairs.written_history import WrittenHistory


def lines(path: Path, *documents: object) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def an_issue(title: str, body: str = "") -> Issue:
    return Issue(issue_id="1", title=title, body=body, commits=())


def test_a_title_and_the_first_sentence_of_the_body_make_the_query() -> None:
    body = "## Steps\n\n```py\nretry()\n```\nThe third attempt never happens in production. Then more text."
    query = issue_query(an_issue("[BUG] Webhooks are not retried after a timeout (#12)", body))
    expected = "Webhooks are not retried after a timeout. The third attempt never happens in production."
    assert query == (expected, "")


def test_a_title_alone_and_a_title_that_says_nothing() -> None:
    assert issue_query(an_issue("Webhooks are not retried after a timeout", "See above")).text.endswith("timeout")
    assert issue_query(an_issue("Help needed")) == ("", "issue_too_short")


def test_secrets_and_addresses_of_people_never_enter() -> None:
    key = "AKIA" + "QWERTYUIOPASDFGH"
    assert issue_query(an_issue(f"Upload fails with key {key} every night")).dropped == "query_holds_secret"
    body = "Ask ann.abbott@company.com who saw it first in production."
    assert "company.com" not in issue_query(an_issue("Upload fails with large files at night", body)).text


def test_abbreviated_commits_are_found_only_without_doubt() -> None:
    known = sorted(["abcdef1234", "abcdef1299", "1234567890"])
    assert matching(["1234567"], known) == ["1234567890"]
    assert matching(["abcdef12"], known) == []
    assert matching(["abcdef1234", "abcdef123"], known) == ["abcdef1234"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 must be an object, found list"),
        ('{"id": 1, "title": "t"}', "an issue needs `id`, `title` and `commits`"),
        ('{"id": 1, "title": "t", "commits": ["abc"]}', "commit ids of at least 7 letters"),
    ],
)
def test_a_bad_line_of_issues_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "issues.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(PairsError, match=message):
        read_issues(path)


def with_issues(source: Path, issues: Path) -> Settings:
    document = {"repositories": [{"source": str(source), "issues": str(issues)}], "pairs": {"test_queries": 20}}
    return Settings.model_validate(document)


def commit_ids(written: WrittenHistory) -> list[str]:
    """Newest first."""
    source: GitSource = written.source()
    with source:
        return str(source.repo.git.rev_list("main")).split()


@pytest.mark.usefixtures("small_guard")
def test_issues_ask_for_what_their_commits_changed(written: WrittenHistory, store: Store, tmp_path: Path) -> None:
    shop = Shop(written)
    shop.go_on(120)
    newest, *_, oldest, _ = commit_ids(written)
    issues = lines(
        tmp_path / "issues.jsonl",
        {"id": 1, "title": "Vouchers vanish when two courts disagree", "commits": [oldest[:10]]},
        {"id": 2, "title": "Printers jam whenever labels arrive sideways", "commits": [newest]},
        {"id": 3, "title": "Nobody knows this commit at all anywhere", "commits": ["0" * 40]},
    )
    manifest = build_pairs(with_issues(written.path, issues), store)
    pairs = pl.read_parquet(store.pairs).filter(pl.col("source") == "issue")
    found = {(row["query"], row["split"]) for row in pairs.iter_rows(named=True)}
    assert ("Printers jam whenever labels arrive sideways", "test") in found
    assert manifest.dropped["issue_commit_unknown"] == 1
    benchmark = read_benchmark(store.current_benchmark)
    assert manifest.test_queries["issue"] == 1
    assert find_leaks(pl.read_parquet(store.pairs), benchmark, read_json(store.pairs_copies)) == []


@pytest.mark.usefixtures("small_guard")
def test_written_queries_name_their_definition(written: WrittenHistory, store: Store, tmp_path: Path) -> None:
    Shop(written).go_on(60)
    asked = {"repository": "shop", "path": "src/ledger.py", "name": "splits_ledger"}
    queries = lines(
        tmp_path / "queries.jsonl",
        {"query": "where do we divide the books by owner", **asked},
        {"query": "where does something absent happen in here", **asked, "name": "absent"},
    )
    manifest = build_pairs(settings_for(written.path, queries_file=str(queries)), store)
    rows = pl.read_parquet(store.pairs).filter(pl.col("source") == "written")
    assert manifest.dropped["written_unmatched"] == 1
    if rows.height:  # It may have lost against a commit query that judges the same function.
        assert rows["positive"].item().startswith("src/ledger.py splits_ledger\n")
    else:
        assert manifest.dropped["leaks_into_test"]


@pytest.mark.usefixtures("small_guard")
def test_a_written_query_without_its_path_is_refused(written: WrittenHistory, store: Store, tmp_path: Path) -> None:
    Shop(written).go_on(5)
    queries = lines(tmp_path / "queries.jsonl", {"query": "where is it", "repository": "shop", "name": "x"})
    with pytest.raises(PairsError, match=r"queries\.jsonl, line 1: `path` must be a text"):
        build_pairs(settings_for(written.path, queries_file=str(queries)), store)
