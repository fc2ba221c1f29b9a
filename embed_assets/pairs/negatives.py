"""Hard negatives without a model: what stands beside the answer in its file and answers something else.

They cost nothing, exist on the first night, and raised reciprocal rank by two points in experiments. Where the file
holds too few, BM25 finds functions that share the query's words; alone, those do not help (docs/experiments.md). What a
model finds, `training.mining` adds.
"""

from collections.abc import Collection, Iterable, Sequence

from embed_assets.pairs.corpus import Corpus, Function
from embed_assets.pairs.near_duplicates import THRESHOLD, jaccard, near_pairs
from embed_assets.pairs.separation import Sketches
from embed_assets.pairs.sources import Proposal
from embed_assets.records import digest_of
from embed_assets.retrieval.bm25 import BM25
from embed_assets.retrieval.negatives import NO_DOCUMENT, mine_lexical_negatives

NEAR_ONES = 4
"""More are mined than wanted, in case some are near-duplicates of an answer."""

Row = tuple[Proposal, Function]
"""A query and one of its answers."""


def held_out_contents(proposals: Iterable[Proposal], corpus: Corpus, sketches: Sketches) -> frozenset[str]:
    """snippet_ids of what judges the model: the answers of the test side, and functions that nearly are one."""
    answers = {
        answer.snippet_id: answer for proposal in proposals if proposal.split == "test" for answer in proposal.answers
    }
    documents = corpus.documents()
    near = near_pairs(
        [sketches.of_code(answer) for answer in answers.values()],
        [sketches.of_code(document) for document in documents],
    )
    return frozenset([*answers, *(documents[place].snippet_id for _, place, _ in near)])


def hard_negatives(
    rows: Sequence[Row], corpus: Corpus, sketches: Sketches, *, most: int, held_out: Collection[str]
) -> list[tuple[str, ...]]:
    """Embedded texts of at most `most` functions for each row: first of the answer's file, then by BM25.

    Left out: answers of the query and near-duplicates of them, and `held_out` (`held_out_contents`), so that nothing of
    the test side is seen in training, not even as a negative.
    """
    found = [_of_the_file(row, corpus, sketches, most, held_out) if most else {} for row in rows]
    short = [place for place, negatives in enumerate(found) if len(negatives) < most]
    if short:
        mined = _by_words([rows[place] for place in short], corpus, most, held_out)
        for place, candidates in zip(short, mined, strict=True):
            _take(found[place], candidates, rows[place], sketches, most)
    return [tuple(function.text for function in negatives.values()) for negatives in found]


def _of_the_file(
    row: Row, corpus: Corpus, sketches: Sketches, most: int, held_out: Collection[str]
) -> dict[str, Function]:
    """Functions of the answer's file, those of its scope first."""
    proposal, answer = row
    beside = [
        function
        for function in corpus.by_file.get((answer.repository, answer.path), ())
        if _may_be_shown(proposal, function, held_out)
    ]
    beside.sort(key=lambda function: (function.scope != answer.scope, _shuffled(proposal, function)))
    taken: dict[str, Function] = {}
    _take(taken, beside, row, sketches, most)
    return taken


def _by_words(rows: Sequence[Row], corpus: Corpus, most: int, held_out: Collection[str]) -> list[list[Function]]:
    """Functions of any file that share words with the query; answers that the corpus no longer holds set a cap too."""
    documents = corpus.documents()
    place_of = {function.text: place for place, function in enumerate(documents)}
    gone = dict.fromkeys(answer.text for _, answer in rows if answer.text not in place_of)
    place_of |= {text: len(documents) + place for place, text in enumerate(gone)}
    past = range(len(documents), len(place_of))
    judged = [place for place, function in enumerate(documents) if function.snippet_id in held_out]
    by_definition = {function.definition_id: place for place, function in enumerate(documents)}
    by_content = {function.snippet_id: place for place, function in enumerate(documents)}
    excluded = [
        [
            *(by_definition[one.definition_id] for one in proposal.answers if one.definition_id in by_definition),
            *(by_content[one.snippet_id] for one in proposal.answers if one.snippet_id in by_content),
        ]
        for proposal, _ in rows
    ]
    mined = mine_lexical_negatives(
        BM25(list(place_of)),
        [proposal.query for proposal, _ in rows],
        [place_of[answer.text] for _, answer in rows],
        excluded,
        count=most + NEAR_ONES,
        never=[*past, *judged],
    )
    return [[documents[place] for place in places if place != NO_DOCUMENT] for places in mined.tolist()]


def _take(taken: dict[str, Function], candidates: Sequence[Function], row: Row, sketches: Sketches, most: int) -> None:
    """Adds candidates unlike every answer of the query, by content, until there are `most`."""
    answers = [sketches.of_code(answer) for answer in row[0].answers]
    for function in candidates:
        if len(taken) == most:
            break
        if all(jaccard(sketches.of_code(function), answer) < THRESHOLD for answer in answers):
            taken.setdefault(function.snippet_id, function)


def _may_be_shown(proposal: Proposal, function: Function, held_out: Collection[str]) -> bool:
    return function.snippet_id not in held_out and all(
        function.snippet_id != one.snippet_id and function.definition_id != one.definition_id
        for one in proposal.answers
    )


def _shuffled(proposal: Proposal, function: Function) -> str:
    """An order that is another one for each query and the same every night."""
    return digest_of("negative", proposal.query, function.definition_id)
