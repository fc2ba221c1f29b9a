"""One step: embed the batch's distinct texts in micro-batches of like length, take the loss, fill the gradients.

Works on one process or on several: then each embeds its share of the texts, all gather the vectors, and every one
computes the whole loss. A rank's gradients come from its own texts, so their sum over ranks is the joint batch's.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.padded import length_batches
from embed_assets.encoder.paths import embed_tokens
from embed_assets.training.data import Batch
from embed_assets.training.loss import info_nce
from embed_assets.training.memory import MemoryPlan
from embed_assets.training.ranks import Ranks

if TYPE_CHECKING:
    import torch


def loss_and_gradients(
    encoder: Encoder, batch: Batch, *, temperature: float, plan: MemoryPlan, path: str, ranks: Ranks
) -> float:
    """Adds the gradients of the batch's loss to the adapter's weights and returns the loss.

    On several ranks the gradients are this rank's share: sum them over ranks before the optimizer's step.
    """
    import torch

    share = ranks.share([len(row) for row in batch.tokens])
    rows = [batch.tokens[index] for index in share]
    if path == "flat" and not plan.cached_gradients:
        micro = [list(range(len(rows)))]  # it divides a whole step among the cores by itself
    else:
        micro = length_batches([len(row) for row in rows], plan.micro_batch_tokens)
    if plan.cached_gradients:
        with torch.no_grad():
            embedded = [embed_tokens(encoder, [rows[index] for index in part], path) for part in micro]
        own = _in_order(embedded, micro).requires_grad_()
    else:
        embedded = [embed_tokens(encoder, [rows[index] for index in part], path) for part in micro]
        own = _in_order(embedded, micro)  # (texts of this rank, dim)
    vectors = ranks.gather(own, share, len(batch.tokens))  # (texts, dim)
    loss = batch_loss(vectors, batch, temperature)
    if not plan.cached_gradients:
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())
    (gradient,) = torch.autograd.grad(loss, own)  # (texts of this rank, dim)
    for part in micro:
        again = embed_tokens(encoder, [rows[index] for index in part], path)
        torch.autograd.backward(again, gradient[part])
    return float(loss.detach())


def batch_loss(vectors: "torch.Tensor", batch: Batch, temperature: float) -> "torch.Tensor":
    """InfoNCE of a batch whose distinct texts have `vectors` (texts, dim)."""
    import torch

    def on_device(array: Sequence[int] | object) -> "torch.Tensor":
        return torch.as_tensor(array, device=vectors.device)

    return info_nce(
        vectors[on_device(batch.queries)],
        vectors[on_device(batch.passages)],
        on_device(batch.positives),
        on_device(batch.masked),
        temperature=temperature,
        weights=on_device(batch.weights),
    )


def _in_order(embedded: "list[torch.Tensor]", micro: list[list[int]]) -> "torch.Tensor":
    """The rows of all micro-batches, back in the order of their texts."""
    import torch

    order = torch.tensor([index for part in micro for index in part])
    joined = torch.cat(embedded)
    return joined[torch.argsort(order).to(joined.device)]
