"""Which commit subjects become queries, and what is cut from them."""

import pytest

from embed_assets.pairs.subjects import subject_query, written_by_bot


@pytest.mark.parametrize(
    ("subject", "query"),
    [
        (
            "fix(router): handle trailing slashes in mounted apps (#123)",
            "router: handle trailing slashes in mounted apps",
        ),
        ("feat!: stream responses without buffering", "stream responses without buffering"),
        (
            "Abort other operations on constraint violation, closes #1159",
            "Abort other operations on constraint violation",
        ),
        ("[SHOP-12] Retry failed webhooks with backoff", "Retry failed webhooks with backoff"),
        ("SHOP-12: Retry failed webhooks with backoff.", "Retry failed webhooks with backoff"),
        ("Fixes #42 - retry failed webhooks with backoff", "retry failed webhooks with backoff"),
        (":bug: Retry `failed` webhooks with backoff [skip ci]", "Retry failed webhooks with backoff"),
        (
            "Merge repeated data options when parsing curl commands",
            "Merge repeated data options when parsing curl commands",
        ),
        ("Reject tokens of ann@example.org after logout", "Reject tokens of after logout"),
        ("search: add support for compressed files", "search: add support for compressed files"),
        ("Trap HTTP errors in debug mode. This should fix #429", "Trap HTTP errors in debug mode"),
        ("Hash equal numbers alike, part of the fix for #43", "Hash equal numbers alike, part of the fix"),
        ("修复登录页面在超时后崩溃的问题", "修复登录页面在超时后崩溃的问题"),
        ("Send the file that we were asked for", "Send the file that we were asked for"),
        ("feat(render): add PDF renderer and tests", "render: add PDF renderer and tests"),
        ("Fix compilation on ARM 32", "Fix compilation on ARM 32"),
        ("Improve docs and error messages", "Improve docs and error messages"),
        ("Update rows to the limit that was given", "Update rows to the limit that was given"),
        ("Fix test client losing its cookies", "Fix test client losing its cookies"),
        ("Add docs and fix concat_columns to work with groups", "Add docs and fix concat_columns to work with groups"),
        ("Remove comments from minified templates", "Remove comments from minified templates"),
        (
            "Format durations as human readable strings everywhere",
            "Format durations as human readable strings everywhere",
        ),
    ],
)
def test_ceremony_is_cut(subject: str, query: str) -> None:
    assert subject_query(subject) == (query, "")


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ("Merge branch 'main' into feature/webhooks", "subject_merge"),
        ("Merge pull request #12 from ann/webhooks", "subject_merge"),
        ('Revert "Retry failed webhooks with backoff"', "subject_revert"),
        ("fixup! Retry failed webhooks with backoff", "subject_fixup"),
        ("Bump requests from 2.0.1 to 2.0.2", "subject_release"),
        ("Release v3.4.1", "subject_release"),
        ("1.2.3", "subject_release"),
        ("chore(deps): bump actions/checkout from 3 to 4", "subject_release"),
        ("Run black on everything", "subject_formatting"),
        ("Fix typo in docstring", "subject_formatting"),
        ("Fix some typos in the docstrings", "subject_formatting"),
        ("(csrf) fix typo of csrf middleware", "subject_formatting"),
        ("Add 2.10 changes to CHANGELOG", "subject_about_text"),
        ("Addressing code review feedback from r585 and r648.", "subject_upkeep"),
        ("removed some eclipse warnings", "subject_upkeep"),
        ("Add test for fetch command with redirections disabled", "subject_upkeep"),
        ("test for deprecation warning", "subject_upkeep"),
        ("Update docs for ecto.drop and ecto.load tasks", "subject_about_text"),
        ("Update postgrex to 0.3.0 and bump elixir version requirement", "subject_release"),
        ("test(validator): add test for custom rules (#620)", "subject_upkeep"),
        ("Fix the build, improve types", "subject_upkeep"),
        ("doc: improve docs for --replace flag", "subject_about_text"),
        ("Update outdated comment regarding serializable types (#3012)", "subject_about_text"),
        ("Fix return type in `DataFrame.dtypes/1` typespec (#1002) (#1003)", "subject_about_text"),
        ("mix format", "subject_formatting"),
        ("Fix tests", "subject_upkeep"),
        ("", "subject_too_short"),
        ("it is to be of the use", "subject_too_short"),
    ],
)
def test_what_says_nothing_is_refused_with_its_reason(subject: str, reason: str) -> None:
    assert subject_query(subject) == ("", reason)


@pytest.mark.parametrize(
    ("author", "expected"),
    [
        ("dependabot[bot] <49699333+dependabot[bot]@users.noreply.github.com>", True),
        ("Renovate Bot <renovate@whitesource.com>", True),
        ("Ann Abbott <ann@example.org>", False),
    ],
)
def test_programs_are_told_from_people(author: str, expected: bool) -> None:
    assert written_by_bot(author) is expected
