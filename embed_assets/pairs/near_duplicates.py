"""Which texts say almost the same: MinHash LSH proposes, the true Jaccard similarity of shingles decides.

The bands are chosen for recall: at the threshold a pair is overlooked with a probability below 1 in 10 million, and
what LSH proposes too much is thrown out by the exact comparison. (Broder 1997; Leskovec, Rajaraman and Ullman,
Mining of Massive Datasets, chapter 3.) Knows nothing of sides; `sides` decides what a near-duplicate may not do.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence

from embed_assets.unspaced import bigrams

THRESHOLD = 0.8
"""Jaccard similarity from which two texts count as the same: one line of twenty changed, not a sibling."""
CODE_SHINGLE_TOKENS = 5
BANDS, ROWS = 32, 4
"""128 permutations. At similarity 0.8 a pair shares no band with probability (1 - 0.8^4)^32 = 5e-8."""

_CODE_TOKEN = re.compile(r"\w+|[^\w\s]")
_QUERY_TOKEN = re.compile(r"\w+")

Shingles = frozenset[int]


def code_shingles(code: str) -> Shingles:
    """Hashes of every five tokens in a row; layout does not count. Empty for code without a token."""
    tokens = _CODE_TOKEN.findall(code)
    return frozenset(_hashes(tokens, CODE_SHINGLE_TOKENS))


def query_shingles(text: str) -> Shingles:
    """Hashes of every word and every two words in a row, case and punctuation ignored.

    Five-word shingles would call a query of eight words different for one changed comma; words alone would call two
    queries equal that differ in their order.
    """
    words = [part for word in _QUERY_TOKEN.findall(text.lower()) for part in bigrams(word)]
    return frozenset([*_hashes(words, 1), *_hashes(words, 2)]) if words else frozenset()


def jaccard(left: Shingles, right: Shingles) -> float:
    """|intersection| / |union|; 0 when either is empty: nothing is no duplicate of nothing."""
    if not left or not right:
        return 0.0
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def near_pairs(
    left: Sequence[Shingles], right: Sequence[Shingles], *, threshold: float = THRESHOLD
) -> Iterator[tuple[int, int, float]]:
    """Every (index in `left`, index in `right`, Jaccard similarity) at or above `threshold`, in order of `right`."""
    from datasketch import MinHash, MinHashLSH

    first, second = _distinct(left), _distinct(right)
    if not first or not second:
        return
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    left_sets, right_sets = list(first), list(second)
    with index.insertion_session() as session:
        for key, sketch in enumerate(MinHash.generator(left_sets, num_perm=BANDS * ROWS, hashfunc=int)):
            session.insert(key, sketch, check_duplication=False)
    for shingles, sketch in zip(
        right_sets, MinHash.generator(right_sets, num_perm=BANDS * ROWS, hashfunc=int), strict=True
    ):
        for key in sorted(index.query(sketch)):
            similarity = jaccard(left_sets[key], shingles)
            if similarity >= threshold:
                for position in second[shingles]:
                    for other in first[left_sets[key]]:
                        yield other, position, similarity


def _distinct(sets: Sequence[Shingles]) -> dict[Shingles, list[int]]:
    """Each different non-empty set once, with the places where it stands: copies are sketched and compared once."""
    places: dict[Shingles, list[int]] = {}
    for position, shingles in enumerate(sets):
        if shingles:
            places.setdefault(shingles, []).append(position)
    return places


def _hashes(tokens: Sequence[str], width: int) -> Iterable[int]:
    if len(tokens) <= width:
        return [zlib.crc32(" ".join(tokens).encode("utf-8", "surrogatepass"))] if tokens else []
    return [
        zlib.crc32(" ".join(tokens[start : start + width]).encode("utf-8", "surrogatepass"))
        for start in range(len(tokens) - width + 1)
    ]
