"""Hard negatives: beside the answer first, then by words; never an answer, what nearly is one, or what judges."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from embed_assets.pairs.corpus import Corpus, Function
from embed_assets.pairs.negatives import hard_negatives, held_out_contents
from embed_assets.pairs.separation import Sketches
from embed_assets.pairs.sources import Proposal
from embed_assets.pairs.tables import pair_rows, write_json_lines
from embed_assets.retrieval.negatives import mine_lexical_negatives
from tests.pairs.test_separation import a_function, a_proposal, long_code


def corpus_with(*functions: Function) -> Corpus:
    representatives: dict[str, str] = {}
    for function in functions:
        representatives.setdefault(function.snippet_id, function.definition_id)
    return Corpus({function.definition_id: function for function in functions}, representatives)


ANSWER = a_function("retry", long_code("retry"))
BESIDE = a_function("close", long_code("close"))
WORDS = a_function("webhook", "def webhook(failed):\n    return failed.webhook\n", path="b.py")
STRANGER = a_function("parse", long_code("parse"), path="b.py")
QUERY = a_proposal("train", "retry every failed webhook until it is answered", ANSWER)


def test_the_answers_file_comes_first_and_words_fill_up() -> None:
    corpus = corpus_with(ANSWER, BESIDE, WORDS, STRANGER)
    assert hard_negatives([(QUERY, ANSWER)], corpus, Sketches(), most=1, held_out=()) == [(BESIDE.text,)]
    answer = a_function("retry", long_code("retry") + "# failed webhook webhook failed until answered\n")
    query = a_proposal("train", QUERY.query, answer)
    corpus = corpus_with(answer, BESIDE, WORDS, STRANGER)
    assert hard_negatives([(query, answer)], corpus, Sketches(), most=3, held_out=()) == [(BESIDE.text, WORDS.text)]


def test_an_answer_whose_file_is_gone_gets_negatives_by_words() -> None:
    gone = a_function(
        "retry", "def retry(failed, webhook):\n    return webhook.retry(failed, webhook)\n", path="old.py"
    )
    query = a_proposal("train", QUERY.query, gone)
    corpus = corpus_with(WORDS, STRANGER)
    assert hard_negatives([(query, gone)], corpus, Sketches(), most=2, held_out=()) == [(WORDS.text,)]
    assert hard_negatives([(query, gone)], corpus, Sketches(), most=2, held_out={WORDS.snippet_id}) == [()]


def test_copies_and_later_versions_of_the_answer_are_no_negatives() -> None:
    copy = a_function("copy", long_code("retry", extra="    webhook = failed\n"))
    later = a_function("retry", long_code("failed webhook"), path="b.py")
    before = a_function("retry", long_code("retry"), path="b.py")
    query = a_proposal("train", QUERY.query, before)
    corpus = corpus_with(copy, later, BESIDE)
    assert hard_negatives([(query, before)], corpus, Sketches(), most=3, held_out=()) == [()]


def test_none_are_wanted() -> None:
    assert hard_negatives([(QUERY, ANSWER)], corpus_with(ANSWER, BESIDE), Sketches(), most=0, held_out=()) == [()]


NEARLY = a_function("nearly", long_code("close", extra="    value += 1\n"))


def test_what_is_nearly_another_answer_of_the_query_is_no_negative() -> None:
    other = a_function("close", long_code("close"), path="other.py")
    query = a_proposal("train", QUERY.query, ANSWER, other)
    corpus = corpus_with(ANSWER, NEARLY, other)
    assert hard_negatives([(query, ANSWER)], corpus, Sketches(), most=2, held_out=()) == [()]


def test_what_judges_is_held_out_and_what_nearly_is_it() -> None:
    test = a_proposal("test", "parse one header row", a_function("close", long_code("close"), path="other.py"))
    corpus = corpus_with(ANSWER, NEARLY, STRANGER, *test.answers)
    held_out = held_out_contents([QUERY, test], corpus, Sketches())
    assert held_out == {NEARLY.snippet_id, test.answers[0].snippet_id}
    assert hard_negatives([(QUERY, ANSWER)], corpus, Sketches(), most=2, held_out=held_out) == [()]


def negatives_in(folder: Path, proposals: Sequence[Proposal], corpus: Corpus) -> list[list[str]]:
    """Of each line of `train.jsonl`."""
    sketches = Sketches()
    held_out = held_out_contents(proposals, corpus, sketches)
    pairs = pair_rows(proposals, corpus, sketches, hard_negatives=1, held_out=held_out)
    write_json_lines(pairs, corpus, sketches, folder, held_out=held_out)
    lines = map(json.loads, (folder / "train.jsonl").read_text(encoding="utf-8").splitlines())
    return [[text for name, text in line.items() if name.startswith("negative_")] for line in lines]


def test_json_lines_are_filled_with_nothing_that_judges_or_answers(tmp_path: Path) -> None:
    """One row has a neighbour, so that the others must be filled, each from another place of the corpus on."""
    lonely = a_function("parse", long_code("parse before"), path="b.py")
    now, copy = (
        a_function("parse", long_code("parse"), path="b.py"),
        a_function("p", long_code("parse before", extra="    value += 1\n"), path="d.py"),
    )
    judged = a_function("judged", long_code("judged"), path="c.py")
    near_judged = a_function("near", long_code("judged", extra="    value += 1\n"), path="e.py")
    short = [a_proposal("train", f"zzz{n}", lonely) for n in range(12)]
    proposals = [QUERY, *short, a_proposal("test", "yyy", judged)]
    corpus = corpus_with(ANSWER, BESIDE, now, copy, judged, near_judged)
    found = negatives_in(tmp_path, proposals, corpus)
    assert len(found) == 13 and all(len(texts) == 1 for texts in found)
    assert {text for texts in found for text in texts} <= {ANSWER.text, BESIDE.text}


def test_what_no_row_may_show_is_said_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of it for each row took as many numbers as rows times functions that judge."""
    excluded: list[int] = []

    def watched(*args: object, **named: object) -> object:
        excluded.extend(map(len, args[3]))  # type: ignore[call-overload]
        return mine_lexical_negatives(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("embed_assets.pairs.negatives.mine_lexical_negatives", watched)
    judged = [a_function(f"webhook{n}", f"def webhook{n}(failed):\n    return {n}\n", path="c.py") for n in range(50)]
    corpus = corpus_with(ANSWER, WORDS, *judged)
    held_out = {function.snippet_id for function in judged}
    hard_negatives([(QUERY, ANSWER)] * 20, corpus, Sketches(), most=2, held_out=held_out)
    assert len(excluded) == 20 and max(excluded) <= 2 * len(QUERY.answers)
