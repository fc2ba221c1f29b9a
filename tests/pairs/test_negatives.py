"""Hard negatives: beside the answer first, then by words; never an answer, a copy of it, or what judges."""

from embed_assets.pairs.corpus import Corpus, Function
from embed_assets.pairs.negatives import hard_negatives
from embed_assets.pairs.separation import Sketches
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
