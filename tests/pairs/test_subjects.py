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
        ("mix format", "subject_formatting"),
        ("Fix tests", "subject_too_short"),
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
