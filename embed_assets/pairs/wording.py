"""The words of a query: counting them, comparing them, and taking a definition's own name out of them.

Knows text only; what a doc or a commit subject is, `docs` and `subjects` know.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from embed_assets.snippets.secrets import holds_secret, without_addresses
from embed_assets.unspaced import bigrams

_WORD = re.compile(r"[^\W\d_]{2,}")
_IDENTIFIER_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
_SPACE = re.compile(r"\s+")
_EMPTY_BRACKETS = re.compile(r"\(\s*[,.]*\s*\)|\[\s*\]|\{\s*\}|``+|\"\"|''")
_SPACE_BEFORE_PUNCTUATION = re.compile(r"\s+(?=[,.;:!?)])")

_STOP_WORDS = (
    "a an and are as at be by can do does for from has have if in into is it its more not of on or so some "
    "such than that the their them then there these this to use used uses using was we when where which will "
    "with you your"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that say nothing of what a function is about."""


class Cleaned(NamedTuple):
    """A text fit to be a query, or the reason why it is none: exactly one of the two is not empty."""

    text: str
    dropped: str = ""


def one_line(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


def fit_to_keep(text: str) -> Cleaned:
    """A text without people's addresses; one that holds a secret is refused, never stored: `query_holds_secret`."""
    if holds_secret(text):
        return Cleaned("", "query_holds_secret")
    return Cleaned(without_addresses(text))


def content_words(text: str) -> list[str]:
    """Lower-case words of at least two letters that are no stop words, in order; Chinese by pairs of characters."""
    words = (part.lower() for found in _WORD.findall(text) for part in bigrams(found))
    return [word for word in words if word not in STOP_WORDS]


def identifier_parts(name: str) -> list[str]:
    """`getHTTPUser_2` -> get, HTTP, User, 2."""
    return _IDENTIFIER_PART.findall(name)


def masked(text: str, names: Iterable[str]) -> str:
    """`text` without `names`, in whatever form they are written: `read_blob`, `readBlob`, `Read blob`, `read-blob`.

    A name of one part goes as a whole word only: `run` leaves `running` alone.
    """
    for name in sorted(set(names), key=lambda name: (-len(name), name)):
        parts = identifier_parts(name)
        if not parts:
            continue
        forms = r"[\s_\-]?".join(re.escape(part) for part in parts)
        text = re.sub(rf"(?<![^\W_])_*{forms}_*[!?]?(?:\(\)|/\d+)?(?![^\W_])", " ", text, flags=re.IGNORECASE)
    text = _EMPTY_BRACKETS.sub(" ", text)
    return _SPACE_BEFORE_PUNCTUATION.sub("", one_line(text)).strip(" :,;-")


def says_more_than(text: str, names: Iterable[str], *, least_words: int = 2) -> bool:
    """Whether at least `least_words` content words are left once the names are masked: such a query can be answered
    by what a function does, not only by what it is called."""
    return len(set(content_words(masked(text, names)))) >= least_words
