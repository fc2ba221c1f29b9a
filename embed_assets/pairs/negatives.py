"""Hard negatives without a model: what stands beside the answer in its file and answers something else.

They cost nothing, exist on the first night, and raised reciprocal rank by two points in experiments; the ones that a
model confuses are mined later (`retrieval.negatives`), when there is a model to ask.
"""

from collections.abc import Collection

from embed_assets.pairs.corpus import Corpus, Function
from embed_assets.pairs.near_duplicates import THRESHOLD, jaccard
from embed_assets.pairs.separation import Sketches
from embed_assets.pairs.sources import Proposal
from embed_assets.records import digest_of


def same_file_negatives(
    proposal: Proposal, answer: Function, corpus: Corpus, sketches: Sketches, *, most: int, held_out: Collection[str]
) -> tuple[str, ...]:
    """Embedded texts of at most `most` functions of the answer's file, those of its scope first.

    Left out: other answers of the query, near-duplicates of the answer, and `held_out` (snippet_ids that judge the
    model), so that nothing of the test side is seen in training, not even as a negative.
    """
    if not most:
        return ()
    answers = {found.snippet_id for found in proposal.answers}
    definitions = {found.definition_id for found in proposal.answers}
    beside = [
        function
        for function in corpus.by_file.get((answer.repository, answer.path), ())
        if function.snippet_id not in answers
        and function.snippet_id not in held_out
        and function.definition_id not in definitions
    ]
    beside.sort(key=lambda function: (function.scope != answer.scope, _shuffled(proposal, function)))
    negatives: dict[str, Function] = {}
    for function in beside:
        if len(negatives) == most:
            break
        if jaccard(sketches.of_code(function), sketches.of_code(answer)) < THRESHOLD:
            negatives.setdefault(function.snippet_id, function)
    return tuple(function.text for function in negatives.values())


def _shuffled(proposal: Proposal, function: Function) -> str:
    """An order that is another one for each query and the same every night."""
    return digest_of("negative", proposal.query, function.definition_id)
