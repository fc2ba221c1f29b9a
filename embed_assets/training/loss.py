"""InfoNCE over a batch: each query finds its positive among all passages of the batch.

L = -log( exp(s(q, p) / t) / sum over passages not masked of exp(s(q, x) / t) ), s the cosine (van den Oord et al.,
2018). A teacher's distribution over the passages may have a share beside the label (Hinton et al., 2015, arXiv
1503.02531). It knows no model; vectors come in with unit rows.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def info_nce(
    queries: "torch.Tensor",  # (rows, dim), unit rows
    passages: "torch.Tensor",  # (columns, dim), unit rows
    positives: "torch.Tensor",  # (rows,) column of each row's positive
    masked: "torch.Tensor",  # (rows, columns) bool: columns that are no negatives of the row
    *,
    temperature: float,
    weights: "torch.Tensor",  # (rows,)
    targets: "torch.Tensor | None" = None,  # (rows, columns) a teacher's distributions; zero where masked
    share: float = 0.0,
) -> "torch.Tensor":
    """Weighted mean loss; a row weighs as its pair does. With zero vectors it is log(columns).

    Args:
        share: of the cross-entropy with `targets` in a row's loss; the label's has the rest.
    """
    import torch

    scores = torch.einsum("rd,cd->rc", queries, passages) / temperature  # (rows, columns)
    scores = scores.masked_fill(masked, float("-inf"))
    losses = torch.nn.functional.cross_entropy(scores, positives, reduction="none")  # (rows,)
    if targets is not None:
        likelihoods = torch.log_softmax(scores, dim=1).masked_fill(masked, 0.0)  # (rows, columns)
        losses = (1 - share) * losses - share * (targets * likelihoods).sum(dim=1)
    return (losses * weights).sum() / weights.sum()


def ranking_divergence(
    scores: "torch.Tensor",  # (queries, passages) cosines
    kept: "torch.Tensor",  # (queries, passages) cosines of the model whose ranking is to stay
    *,
    temperature: float,
) -> "torch.Tensor":
    """KL(softmax(kept / t) || softmax(scores / t)), over passages for each query and over queries for each passage.

    The mean of both directions; zero where all scores differ by one constant at most.
    """
    import torch

    def one_way(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.kl_div(
            torch.log_softmax(now / temperature, dim=1), torch.log_softmax(before / temperature, dim=1),
            log_target=True, reduction="batchmean",
        )  # fmt: skip

    return (one_way(scores, kept) + one_way(scores.T, kept.T)) / 2


def masked_columns(
    positives: np.ndarray,  # (rows,) column of each row's positive
    answers: np.ndarray,  # (rows, known) bool: passages that are a positive of the row's query, in this batch or not
    contents: np.ndarray,  # (known,) passages with equal content share an id; the first ones are the columns
    definitions: np.ndarray,  # (known,) passages of one definition share an id; -1 where it is not known
    similar: np.ndarray,  # (known, known) bool: nearly equal passages
    columns: int,
) -> np.ndarray:  # (rows, columns) bool
    """Which columns must not count as negatives: those that answer the query as well as its positive does.

    A column is masked for a row if it is, in content or by definition, or nearly, an answer of the row's query. The
    row's own positive is never masked.
    """
    equal = (contents[:, None] == contents[None, :columns]) | similar[:, :columns]  # (known, columns)
    equal |= (definitions[:, None] == definitions[None, :columns]) & (definitions[:, None] >= 0)
    # To any of the answers. In float32 the counts are exact, and numpy multiplies integers slowly.
    masked = (answers.astype(np.float32) @ equal.astype(np.float32)) > 0
    masked[np.arange(len(positives)), positives] = False
    return np.asarray(masked)


def similar_passages(token_sets: list[np.ndarray], threshold: float = 0.9) -> np.ndarray:  # (columns, columns) bool
    """Passages whose sets of tokens overlap by at least `threshold` (Jaccard): copies with a line changed."""
    sizes = np.array([len(tokens) for tokens in token_sets])
    joined, inverse = np.unique(np.concatenate(token_sets), return_inverse=True)
    present = np.zeros((len(token_sets), len(joined)), dtype=np.float32)
    present[np.repeat(np.arange(len(token_sets)), sizes), inverse] = 1.0
    shared = present @ present.T
    union = sizes[:, None] + sizes[None, :] - shared
    return np.asarray(shared >= threshold * union)
