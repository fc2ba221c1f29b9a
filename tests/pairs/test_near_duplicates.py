"""MinHash LSH against the comparison of every pair with every other."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from embed_assets.pairs.near_duplicates import THRESHOLD, code_shingles, jaccard, near_pairs, query_shingles

CODE = """
def read_rows(path, limit):
    rows = []
    with open(path) as file:
        for number, line in enumerate(file):
            if number >= limit:
                break
            rows.append(line.strip().split(","))
    return rows
"""


def test_layout_does_not_count() -> None:
    assert code_shingles(CODE) == code_shingles(CODE.replace("\n", "\n\n").replace("    ", "\t"))


def test_a_small_edit_of_a_function_is_a_near_duplicate_and_another_function_is_none() -> None:
    edited = CODE.replace("limit):", "limit=10):")
    other = "def close(self):\n    self.file.close()\n    self.file = None\n    self.closed = True\n"
    found = list(near_pairs([code_shingles(CODE)], [code_shingles(edited), code_shingles(other)]))
    assert [(left, right) for left, right, _ in found] == [(0, 0)]
    assert THRESHOLD <= found[0][2] < 1


def test_queries_that_differ_in_case_or_in_one_last_word_are_near() -> None:
    first = query_shingles("Retry failed webhooks with a longer backoff")
    assert jaccard(first, query_shingles("retry failed WEBHOOKS, with a longer backoff!")) == 1
    assert jaccard(first, query_shingles("Retry failed webhooks with a longer backoff now")) >= THRESHOLD
    assert jaccard(first, query_shingles("Retry failed payments with a longer backoff")) < THRESHOLD


def test_queries_in_a_script_without_spaces_are_compared_by_pairs_of_characters() -> None:
    first = query_shingles("修复登录页面在超时后崩溃的问题")
    assert jaccard(first, query_shingles("修复登录页面在超时后崩溃的问题。")) == 1
    assert jaccard(first, query_shingles("修复登录页面在超时后崩溃问题")) > 0.5
    assert jaccard(first, query_shingles("修复设置页面在保存后崩溃的问题")) < THRESHOLD


def test_jaccard_is_the_shared_share() -> None:
    assert jaccard(frozenset({1, 2, 3}), frozenset({2, 3, 4})) == 0.5
    assert jaccard(frozenset(), frozenset()) == 0


def test_nothing_is_near_nothing() -> None:
    assert list(near_pairs([frozenset()], [frozenset()])) == []
    assert list(near_pairs([], [frozenset({1})])) == []


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_lsh_finds_what_brute_force_finds(seed: int) -> None:
    chance = random.Random(seed)
    base = [frozenset(chance.sample(range(5_000), chance.randint(1, 60))) for _ in range(20)]
    varied = [
        frozenset(element for element in shingles if chance.random() > 0.1) | {chance.randrange(5_000)}
        for shingles in base
        for _ in range(2)
    ]
    brute = {
        (i, j) for i, left in enumerate(base) for j, right in enumerate(varied) if jaccard(left, right) >= THRESHOLD
    }
    assert {(i, j) for i, j, _ in near_pairs(base, varied)} == brute


def test_every_place_of_a_copy_is_named() -> None:
    same = code_shingles(CODE)
    assert sorted((i, j) for i, j, _ in near_pairs([same, same], [same, frozenset({1}), same])) == [
        (0, 0),
        (0, 2),
        (1, 0),
        (1, 2),
    ]
