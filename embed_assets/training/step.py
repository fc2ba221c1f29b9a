"""One step: embed the batch's distinct texts in micro-batches of like length, take the loss, fill the gradients.

Works on one process or on several: then each embeds its share of the texts, all gather the vectors, and every one
computes the whole loss. A rank's gradients come from its own texts, so their sum over ranks is the joint batch's.
"""

from typing import TYPE_CHECKING

import numpy as np

from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.paths import embed_tokens, row_batches
from embed_assets.encoder.transfer import to_device
from embed_assets.training.data import Batch
from embed_assets.training.loss import info_nce, ranking_divergence
from embed_assets.training.memory import MemoryPlan
from embed_assets.training.ranks import Ranks

if TYPE_CHECKING:
    import torch


def loss_and_gradients(
    encoder: Encoder, batch: Batch, *, temperature: float, plan: MemoryPlan, path: str, ranks: Ranks
) -> "torch.Tensor":  # scalar
    """Adds the gradients of the batch's loss to the adapter's weights and returns the loss, still on its device.

    On several ranks the gradients are this rank's share: sum them over ranks before the optimizer's step.
    """
    import torch

    lengths = [len(row) for row in batch.tokens]
    rows = [batch.tokens[index] for index in ranks.share(lengths)]
    micro = micro_batches([len(row) for row in rows], plan, path)

    def embed(part: list[int]) -> torch.Tensor:
        return embed_tokens(encoder, [rows[index] for index in part], path, activation_budget=plan.activation_budget)

    with torch.set_grad_enabled(not plan.cached_gradients):
        own = _in_order([embed(part) for part in micro], micro)  # (texts of this rank, dim)
    own.requires_grad_(plan.cached_gradients or own.requires_grad)
    vectors = ranks.gather(own, lengths)  # (texts, dim)
    loss = batch_loss(vectors, batch, temperature)
    if not plan.cached_gradients:
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    (gradient,) = torch.autograd.grad(loss, own)  # (texts of this rank, dim)
    for part in micro:
        torch.autograd.backward(embed(part), gradient[to_device(np.array(part), gradient.device)])
    return loss.detach()


def micro_batches(lengths: list[int], plan: MemoryPlan, path: str) -> list[list[int]]:
    """Texts of one forward pass each. Without padding and with room for all of them, that is one pass.

    On a CPU the flat path divides a whole step among the cores by itself.
    """
    if path != "padded" and not plan.cached_gradients:
        return [list(range(len(lengths)))]
    return row_batches(path, lengths, plan.micro_batch_tokens)


def batch_loss(vectors: "torch.Tensor", batch: Batch, temperature: float) -> "torch.Tensor":
    """InfoNCE of a batch whose distinct texts have `vectors` (texts, dim), its labels, teacher and rehearsal."""

    def on_device(array: np.ndarray) -> "torch.Tensor":
        return to_device(array, vectors.device)

    loss = info_nce(
        vectors[on_device(batch.queries)],
        vectors[on_device(batch.passages)],
        on_device(batch.positives),
        on_device(batch.masked),
        temperature=temperature,
        weights=on_device(batch.weights),
        targets=on_device(batch.taught.targets) if batch.taught else None,
        share=batch.taught.share if batch.taught else 0.0,
    )
    if (rehearsed := batch.rehearsed) is None:
        return loss
    scores = vectors[on_device(rehearsed.queries)] @ vectors[on_device(rehearsed.passages)].T  # (draw, draw)
    kept = on_device(rehearsed.scores)
    return loss + rehearsed.weight * ranking_divergence(scores, kept, temperature=temperature)


def _in_order(embedded: "list[torch.Tensor]", micro: list[list[int]]) -> "torch.Tensor":
    """The rows of all micro-batches, back in the order of their texts."""
    import torch

    if len(embedded) == 1 and micro[0] == list(range(len(micro[0]))):
        return embedded[0]
    order = np.argsort(np.array([index for part in micro for index in part]))
    joined = torch.cat(embedded)
    return joined[to_device(order, joined.device)]
