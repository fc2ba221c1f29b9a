"""The lexical half of the fused ranking: BM25 over stems, where the header of a document counts twice.

Plain BM25 (`bm25.py`) stays as the baseline that others can reproduce. What differs here, measured on commit subjects
and on docs (docs/experiments.md, "Recall: the lexical half"): endings of English words are cut, words without content
are left out, the first line of a document (`path scope name`, `records.embedded_text`) counts twice, and long
documents are less penalised: k1 = 0.9, b = 0.4, the defaults of Anserini (Yang, Fang and Lin 2017). It knows the
endings of English only; words of other languages are compared as they are.

Training has it as a teacher (`training/lexical_teacher.py`): whoever changes a score here raises `recipe.CODE_VERSION`.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from embed_assets.retrieval.bm25 import BM25, tokenize

K1 = 0.9
B = 0.4
HEADER_COUNT = 2
SHORTEST_STEM = 3
STOP_WORDS = frozenset(
    """a also an and are as at be been but by can do does for from had has have if in into is it its no not of on or so
    such than that the their then there these they this those to use used using was we were when which will with
    you""".split()  # noqa: SIM905
)
_VOWEL = re.compile("[aeiouy]")


def lexical_index(texts: Sequence[str]) -> BM25:
    """An index of documents in the form of `records.embedded_text`."""
    return BM25(texts, k1=K1, b=B, document_terms=document_terms, query_terms=terms)


def document_terms(text: str) -> list[str]:
    """Terms of a document, those of its first line twice."""
    header, _, code = text.partition("\n")
    return terms(header) * HEADER_COUNT + terms(code)


def terms(text: str) -> list[str]:
    """Stems of the words of `text` that have content, in order.

    >>> terms("Retries of the failed webHooks")
    ['retry', 'fail', 'webhook', 'web', 'hook']
    """
    return [stem(word) for word in tokenize(text) if word not in STOP_WORDS]


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """`word`, in lower case, without plural (Harman 1991, the S-stemmer), -ed, -ing and a final e.

    >>> [stem(word) for word in ("caches", "cached", "caching", "stopped", "class", "parser")]
    ['cach', 'cach', 'cach', 'stop', 'class', 'parser']
    """
    if len(word) <= SHORTEST_STEM or not (word.isascii() and word.isalpha()):
        return word
    if word.endswith(("ies", "ied")) and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    singular = _singular(word)
    for ending in ("ing", "ed"):
        left = singular.removesuffix(ending)
        if left != singular and len(left) >= SHORTEST_STEM and _VOWEL.search(left):
            doubled = left[-1] == left[-2] and left[-1] not in "aeiouls"
            singular = left[:-1] if doubled else left
            break
    return singular[:-1] if len(singular) > SHORTEST_STEM and singular.endswith("e") else singular


def _singular(word: str) -> str:
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")):
        return word[:-1]
    return word
