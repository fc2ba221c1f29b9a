"""Token rows -> one packed row: all documents end to end, no padding between them.

It knows where each document begins and ends, and nothing of models: attention over a packed row must be told
`boundaries`, or documents read each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

MULTIPLE = 256
"""A packed row's length is a multiple of this many tokens: matrix products of ragged lengths are slower."""


class PackingError(ValueError):
    """These token rows cannot be packed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRows:
    """One packed row on a device. Padding at its end is divided into dummy documents, which nothing reads."""

    token_ids: "torch.Tensor"
    """(tokens,) int64"""
    positions: "torch.Tensor"
    """(tokens,) int64, from zero in each document; zero in the padding"""
    boundaries: "torch.Tensor"
    """(rows + dummies + 1,) int32: document i is tokens boundaries[i] to boundaries[i + 1]"""
    rows: int
    """Documents, dummies not counted."""
    longest: int
    """Upper bound of a document's tokens, dummies counted."""
    real_tokens: int
    """Tokens, padding not counted."""

    @property
    def first(self) -> "torch.Tensor":  # (rows,) int64
        """Index of each document's first token."""
        return self.boundaries[: self.rows].long()

    @property
    def last(self) -> "torch.Tensor":  # (rows,) int64
        """Index of each document's last token."""
        return self.boundaries[1 : self.rows + 1].long() - 1


def pack(
    rows: Sequence[Sequence[int]],
    device: "torch.device | str",
    *,
    multiple: int = MULTIPLE,
    longest_multiple: int = 64,
    rows_multiple: int = 1,
) -> PackedRows:
    """Puts the rows end to end, pads to a multiple, and brings the result to `device` in one copy.

    `longest` is rounded up to `longest_multiple`: few different values make few different kernels and graphs. Dummy
    documents fill the rows up to `rows_multiple`, for the same reason.
    Raises `PackingError` for no rows or an empty row, which would have no embedding.
    """
    import torch

    if not rows:
        raise PackingError("no token rows to pack: give at least one")
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    if not lengths.all():
        raise PackingError(f"token row {int(np.argmin(lengths))} is empty: every row needs at least one token")
    longest = int(-(-lengths.max() // longest_multiple) * longest_multiple)
    real_tokens = int(lengths.sum())
    tokens = -(-real_tokens // multiple) * multiple
    dummy_length = min(MULTIPLE, longest, multiple)
    dummies = -(-multiple // dummy_length) + -len(rows) % rows_multiple

    boundaries = np.empty(len(rows) + dummies + 1, dtype=np.int64)
    boundaries[0] = 0
    np.cumsum(lengths, out=boundaries[1 : len(rows) + 1])
    boundaries[len(rows) + 1 :] = np.minimum(real_tokens + dummy_length * np.arange(1, dummies + 1), tokens)

    joined = np.zeros(2 * tokens + len(boundaries), dtype=np.int32)  # ids, positions, boundaries: one copy for all
    joined[:real_tokens] = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=real_tokens)
    starts = np.repeat(boundaries[: len(rows)], lengths)
    joined[tokens : tokens + real_tokens] = np.arange(real_tokens) - starts  # padding stays at 0: always a valid one
    joined[2 * tokens :] = boundaries

    on_host = torch.from_numpy(joined)
    target = torch.device(device)
    if target.type == "cuda":
        on_host = on_host.pin_memory()
    on_device = on_host.to(target, non_blocking=True)
    return PackedRows(
        token_ids=on_device[:tokens].long(),
        positions=on_device[tokens : 2 * tokens].long(),
        boundaries=on_device[2 * tokens :].contiguous(),
        rows=len(rows),
        longest=longest,
        real_tokens=real_tokens,
    )


def token_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Row indices in batches of at most `batch_tokens` tokens, longest first; a longer row is a batch of its own."""
    batches: list[list[int]] = []
    used = batch_tokens
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if used + lengths[index] > batch_tokens:
            batches.append([])
            used = 0
        batches[-1].append(index)
        used += lengths[index]
    return batches


def pooled_tokens(packed: PackedRows, pooling: str) -> "torch.Tensor | None":  # (rows,) int64
    """Indices of the tokens that pooling reads; None when it reads all."""
    return {"last": packed.last, "cls": packed.first, "mean": None}[pooling]
