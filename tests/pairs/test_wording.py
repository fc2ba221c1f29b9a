"""What counts as a word, and how a name is taken out of a query."""

import pytest

from embed_assets.pairs.wording import content_words, identifier_parts, masked, says_more_than


def test_content_words_leave_out_stop_words_numbers_and_single_letters() -> None:
    assert content_words("The 3 blobs of a Tree are in x_y") == ["blobs", "tree"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("read_blob", ["read", "blob"]),
        ("getHTTPUser2", ["get", "HTTP", "User", "2"]),
        ("__init__", ["init"]),
        ("größe_messen", ["gr", "öß", "e", "messen"]),
        ("+", []),
    ],
)
def test_identifiers_fall_into_parts(name: str, parts: list[str]) -> None:
    assert identifier_parts(name) == parts


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("Calls read_blob() twice", "read_blob", "Calls twice"),
        ("Read blob from disk", "read_blob", "from disk"),
        ("readBlob and read-blob differ", "read_blob", "and differ"),
        ("running is not run", "run", "running is not"),
        ("fetch/2 gets a row", "fetch", "gets a row"),
        ("The empty? predicate tells", "empty?", "The predicate tells"),
        ("Adds (parse) here", "parse", "Adds here"),
        ("nothing to see", "absent", "nothing to see"),
    ],
)
def test_a_name_is_masked_in_every_form(text: str, name: str, expected: str) -> None:
    assert masked(text, [name]) == expected


def test_a_longer_name_goes_before_the_shorter_one_inside_it() -> None:
    assert masked("use parse_query for the query", ["query", "parse_query"]) == "use for the"


def test_a_query_that_only_repeats_the_name_says_nothing() -> None:
    assert not says_more_than("Get the user name", ["get_the_user_name"])
    assert not says_more_than("Parse query strings", ["parse_query"])
    assert says_more_than("Parse query strings sent by browsers", ["parse_query"])
