"""Whatever is proposed: after `separate` the independent proof finds nothing on both sides."""

from collections import Counter
from dataclasses import replace

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from embed_assets.pairs.corpus import Corpus, Function
from embed_assets.pairs.leakage import find_leaks
from embed_assets.pairs.near_duplicates import THRESHOLD, code_shingles, jaccard
from embed_assets.pairs.negatives import held_out_contents
from embed_assets.pairs.separation import Sketches, merge_repeated, separate, without_learnt
from embed_assets.pairs.sources import Proposal
from embed_assets.pairs.tables import benchmark_of, copies_of, pair_rows
from embed_assets.records import Split, digest_of, query_digest
from embed_assets.snippets.extract import snippet_id_of

_WORDS = "retry webhook timeout parse header stream row table cache token user query merge split index score"
WORDS = _WORDS.split()


def a_function(name: str, code: str, path: str = "a.py") -> Function:
    return Function(
        definition_id=digest_of("shop", path, name),
        snippet_id=snippet_id_of("python", code),
        repository="shop",
        path=path,
        language="python",
        scope="",
        name=name,
        code=code,
    )


def a_proposal(split: Split, query: str, *answers: Function, source: str = "commit", at: int = 0) -> Proposal:
    return Proposal(
        source=source, split=split, query=query, answers=answers, repository="shop", group_id=query, written_at=at
    )


def long_code(name: str, *, extra: str = "") -> str:
    body = "\n".join(f"    {name}_{number} = compute({number}, '{name}')" for number in range(12))
    return f"def {name}(value):\n{body}\n{extra}    return value\n"


ONE, TWO = a_function("one", long_code("one")), a_function("two", long_code("two"))


NO_COPIES = Corpus({}, {})


def kept(*proposals: Proposal) -> tuple[list[tuple[str, str]], Counter[str]]:
    dropped: Counter[str] = Counter()
    return [(found.split, found.query) for found in separate(proposals, NO_COPIES, Sketches(), dropped)], +dropped


def test_what_stands_apart_stays() -> None:
    train, test = a_proposal("train", "retry the failed webhook", ONE), a_proposal("test", "parse one header row", TWO)
    assert kept(train, test) == ([("train", train.query), ("test", test.query)], Counter())


def test_equal_and_near_queries_lose_against_the_test_side() -> None:
    test = a_proposal("test", "retry the failed webhook after a timeout", TWO)
    for query in ("Retry the failed  webhook after a timeout", "retry the failed webhook after a timeout now"):
        found, dropped = kept(a_proposal("train", query, ONE), test)
        assert found == [("test", test.query)]
        assert +dropped == {"leaks_into_test": 1}


def test_the_same_definition_content_or_nearly_the_same_code_loses() -> None:
    test = a_proposal("test", "parse one header row", ONE)
    older = a_function("one", long_code("another"))
    copy = a_function("copy", long_code("one"), path="b.py")
    edited = a_function("edited", long_code("one", extra="    value += 1\n"), path="c.py")
    for answer in (older, copy, edited):
        found, dropped = kept(a_proposal("train", "retry the failed webhook", answer), test)
        assert found == [("test", test.query)], answer.name
        assert +dropped == {"leaks_into_test": 1}


def test_who_asks_for_a_function_asks_for_its_copies_in_any_version() -> None:
    """One stands for its copy; an older version of the copy looks like neither. The proof sees it by itself."""
    copy = a_function("copy", long_code("one"), path="b.py")
    older_copy = a_function("copy", long_code("before"), path="b.py")
    corpus = Corpus({one.definition_id: one for one in (ONE, copy)}, {ONE.snippet_id: ONE.definition_id})
    learnt, test = a_proposal("train", "retry webhooks", older_copy), a_proposal("test", "parse one header row", ONE)
    dropped: Counter[str] = Counter()
    assert separate([learnt, test], corpus, Sketches(), dropped) == [test]
    assert +dropped == {"leaks_into_test": 1}
    pairs = pair_rows([learnt, test], corpus, Sketches(), hard_negatives=0, held_out=())
    leaks = find_leaks(pairs, benchmark_of([test], corpus, 0), copies_of(corpus))
    assert [leak.kind for leak in leaks] == ["definition"]


def test_only_the_leaking_answer_of_a_query_is_lost() -> None:
    train = a_proposal("train", "retry the failed webhook", ONE, TWO)
    dropped: Counter[str] = Counter()
    found = separate([train, a_proposal("test", "parse one header row", TWO)], NO_COPIES, Sketches(), dropped)
    assert [answer.name for answer in found[0].answers] == ["one"]
    assert +dropped == {"leaks_into_test": 1}


def test_validation_wins_over_training() -> None:
    found, dropped = kept(a_proposal("train", "retry webhooks", ONE), a_proposal("validation", "retry Webhooks", TWO))
    assert found == [("validation", "retry Webhooks")]
    assert dropped == {"leaks_into_validation": 1}


def test_training_may_know_the_function_that_validation_asks_for() -> None:
    found, dropped = kept(a_proposal("train", "retry webhooks", ONE), a_proposal("validation", "parse one row", ONE))
    assert len(found) == 2 and not dropped


def many(split: Split, count: int, *answers: Function) -> list[Proposal]:
    """Dated proposals with queries unlike each other."""
    return [a_proposal(split, f"{split} word{n} thing{n * 7} other{n * 13}", *answers, at=n + 1) for n in range(count)]


def test_a_function_that_always_changes_is_learnt_and_not_judged_by() -> None:
    others = [a_function(f"f{n}", long_code(f"f{n}")) for n in range(19)]
    test = [
        *many("test", 1, ONE),
        *(a_proposal("test", f"ask{n} for{n * 3} it{n * 5}", f, at=9) for n, f in enumerate(others)),
    ]
    dropped: Counter[str] = Counter()
    found = separate([*many("train", 9, ONE), *many("train", 1, others[0]), *test], NO_COPIES, Sketches(), dropped)
    assert +dropped == {"commit_function_always_changing": 1, "leaks_into_test": 1}
    assert sum(one.split == "train" for one in found) == 9
    assert {answer.name for one in found if one.split == "test" for answer in one.answers} == {f.name for f in others}


def test_no_more_than_a_tenth_of_the_test_side_is_given_up_and_nothing_for_little() -> None:
    hot = [a_function(f"f{n}", long_code(f"f{n}")) for n in range(10)]
    test = [a_proposal("test", f"ask{n} for{n * 3} it{n * 5}", f, at=9) for n, f in enumerate(hot)]
    train = [
        a_proposal("train", f"do{n} with{k} that{n * k + 50}", f, at=1) for n, f in enumerate(hot) for k in range(5)
    ]
    dropped: Counter[str] = Counter()
    separate([*train, *test], NO_COPIES, Sketches(), dropped)
    assert dropped["commit_function_always_changing"] == 1
    dropped.clear()
    separate([*many("train", 2, ONE), *test], NO_COPIES, Sketches(), dropped)
    assert dropped["commit_function_always_changing"] == 0


def test_repeated_queries_are_merged_and_too_many_answers_dropped() -> None:
    dropped: Counter[str] = Counter()
    first, second = (
        a_proposal("train", "retry the webhook", ONE, at=1),
        a_proposal("train", "Retry the webhook", TWO, at=2),
    )
    [merged] = merge_repeated([first, second], dropped)
    assert {answer.name for answer in merged.answers} == {"one", "two"}
    assert merged.written_at == 2 and dropped == {"commit_merged": 1}
    many = [a_proposal("train", "fix it", a_function(name, long_code(name))) for name in ("a1", "b2", "c3", "d4")]
    dropped.clear()
    assert merge_repeated(many, dropped) == []
    assert dropped == {"commit_repeated": 4}


def test_a_test_query_that_was_learnt_on_an_earlier_night_leaves_the_test_side() -> None:
    dropped: Counter[str] = Counter()
    test, train = a_proposal("test", "Parse rows", ONE), a_proposal("train", "Parse rows", TWO)
    assert without_learnt([test, train], {query_digest("parse  rows")}, dropped) == [train]
    assert dropped == {"test_learnt_before": 1}


queries = st.lists(st.sampled_from(WORDS), min_size=3, max_size=7).map(" ".join)
bodies = st.lists(st.sampled_from(WORDS), min_size=3, max_size=14)
rows = st.tuples(
    st.sampled_from(["train", "validation", "test"]), queries, st.lists(st.integers(0, 24), min_size=1, max_size=3)
)


def answer_of(split: Split, function: Function, corpus: Corpus) -> Function:
    """Training learns a function as some commit left it; who judges asks for the one that stands for its copies."""
    if split == "train" and function.path in {"1.py", "3.py"}:
        code = long_code(f"older_{function.name}")
        return replace(function, code=code, snippet_id=snippet_id_of("python", code))
    return corpus.representative(function)


@settings(max_examples=60)
@given(st.lists(rows, min_size=1, max_size=40), st.lists(bodies, min_size=25, max_size=25))
def test_the_proof_finds_no_leak_whatever_was_proposed(
    drawn: list[tuple[Split, str, list[int]]], code: list[list[str]]
) -> None:
    """Few words and many repetitions: equal and near-equal queries and functions abound."""
    functions = [
        a_function(
            f"f{number}", "def f(v):\n" + "\n".join(f"    v = {word}(v)" for word in body), path=f"{number % 5}.py"
        )
        for number, body in enumerate(code)
    ]
    representatives: dict[str, str] = {}
    for function in functions:
        representatives.setdefault(function.snippet_id, function.definition_id)
    corpus = Corpus({function.definition_id: function for function in functions}, representatives)
    proposals = [
        a_proposal(split, query, *(answer_of(split, functions[place], corpus) for place in set(places)))
        for split, query, places in drawn
    ]
    dropped: Counter[str] = Counter()
    sketches = Sketches()
    separated = separate(merge_repeated(proposals, dropped), corpus, sketches, dropped)
    held_out = held_out_contents(separated, corpus, sketches)
    pairs = pair_rows(separated, corpus, sketches, hard_negatives=3, held_out=held_out)
    benchmark = benchmark_of([proposal for proposal in separated if proposal.split == "test"], corpus, 0)
    assert find_leaks(pairs, benchmark, copies_of(corpus)) == []
    _nothing_held_out_is_a_negative(pairs)


def _nothing_held_out_is_a_negative(pairs: pl.DataFrame) -> None:
    """Neither what judges, nor an answer of the query, nor nearly one of them."""
    judged = pairs.filter(pl.col("split") == "test")["positive"].to_list()
    for row in pairs.iter_rows(named=True):
        answers = pairs.filter(pl.col("query_id") == row["query_id"])["positive"].to_list()
        for negative in row["hard_negatives"]:
            assert max(likeness(negative, text) for text in [*judged, *answers]) < THRESHOLD


def likeness(left: str, right: str) -> float:
    """Jaccard similarity of the code of two embedded texts."""
    return jaccard(*(code_shingles(text.partition("\n")[2]) for text in (left, right)))
