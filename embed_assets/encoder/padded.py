"""The path that runs anywhere: rows of like length side by side, padded on the right, through torch's own attention."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embed_assets.encoder.pooling import normalise, pool_padded

if TYPE_CHECKING:
    import torch

    from embed_assets.encoder.encoder import Encoder


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Row indices in batches of like length, longest first, at most `batch_tokens` tokens each, padding included.

    A row that is longer than `batch_tokens` is a batch of its own. The longest come first, so that a batch that
    does not fit into memory fails at once and not at the end. A batch that is a quarter full is closed where rows
    get a fifth shorter: a few more passes cost less than the padding.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        if batches and _takes(batches[-1], lengths, index, batch_tokens):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _takes(batch: list[int], lengths: Sequence[int], index: int, batch_tokens: int) -> bool:
    longest = lengths[batch[0]]
    fits = (len(batch) + 1) * longest <= batch_tokens
    return fits and (5 * lengths[index] >= 4 * longest or 4 * len(batch) * longest < batch_tokens)


def padded_embed(encoder: "Encoder", rows: Sequence[Sequence[int]]) -> "torch.Tensor":  # (rows, dim), unit rows
    """One forward pass over all rows, padded to the longest; differentiable when gradients are enabled."""
    import torch

    longest = max(len(row) for row in rows)
    lengths = torch.tensor([len(row) for row in rows])  # (rows,)
    padding = encoder.tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])  # (rows, tokens)
    # Under causal attention no real token sees the padding on its right: the faster unmasked kernel is right.
    mask = None if encoder.causal else (torch.arange(longest) < lengths[:, None]).long()  # (rows, tokens)
    device = encoder.device
    inputs = {"input_ids": ids.to(device), "attention_mask": None if mask is None else mask.to(device)}
    if mask is None or bool(mask.all()):
        inputs["attention_mask"] = None
    states = encoder.model(**inputs, **_without_cache(encoder)).last_hidden_state  # (rows, tokens, dim)
    return normalise(pool_padded(states, lengths.to(device), encoder.pooling))


def _without_cache(encoder: "Encoder") -> dict[str, bool]:
    return {"use_cache": False} if encoder.causal else {}
