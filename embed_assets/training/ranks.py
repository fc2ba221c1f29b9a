"""Several processes, one batch: who embeds which text, how vectors and gradients come together.

Started by torchrun, otherwise there is one rank and nothing is sent. Negatives are shared by all ranks: a batch of
64 on two ranks is one batch of 64, not two of 32.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embed_assets.encoder.transfer import to_device

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among `count` of them."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this rank logs, validates and writes."""
        return self.rank == 0

    def share(self, lengths: Sequence[int], rank: int | None = None) -> list[int]:
        """Which texts a rank embeds: dealt out by length, so that all ranks have about equally many tokens."""
        if self.count == 1:
            return list(range(len(lengths)))
        own = self.rank if rank is None else rank
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
        return [
            index
            for place, index in enumerate(order)
            if (place % self.count if place // self.count % 2 == 0 else self.count - 1 - place % self.count) == own
        ]

    def gather(self, own: "torch.Tensor", lengths: Sequence[int]) -> "torch.Tensor":
        """All texts' vectors (texts, dim) from each rank's own (its share, dim); gradients flow to the own ones only.

        Every rank knows every other's share, so that one message does, and no rank waits for its device.
        """
        if self.count == 1:
            return own
        import torch.distributed as distributed

        shares = [self.share(lengths, rank) for rank in range(self.count)]
        largest = max(map(len, shares))
        padded = own.new_zeros(largest, own.shape[1])
        padded[: len(own)] = own.detach()
        gathered = own.new_empty(self.count * largest, own.shape[1])
        gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor  # torch < 2.13
        gather(gathered, padded)
        place = np.empty(len(lengths), dtype=np.int64)
        for rank, share in enumerate(shares):
            place[share] = rank * largest + np.arange(len(share))
        everything = gathered[to_device(place, own.device)]
        return everything.index_copy(0, to_device(np.array(shares[self.rank], dtype=np.int64), own.device), own)

    def sum_gradients(self, parameters: "Iterable[torch.nn.Parameter]") -> None:
        """Adds up all ranks' gradients, in one message."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as distributed

        held = list(parameters)
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in held])
        distributed.all_reduce(flat)
        for parameter, part in zip(held, torch.split(flat, [p.numel() for p in held]), strict=True):
            parameter.grad = part.view_as(parameter).clone()


def join_ranks(device: str) -> Ranks:
    """This process's place, from torchrun's environment; connects the ranks to each other."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Ranks()
    import torch
    import torch.distributed as distributed

    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        torch.cuda.set_device(local)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    return Ranks(rank, count)
