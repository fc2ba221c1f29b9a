"""Several processes, one batch: who embeds which text, how vectors and gradients come together.

Started by torchrun, otherwise there is one rank and nothing is sent. Negatives are shared by all ranks: a batch of
64 on two ranks is one batch of 64, not two of 32.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

    def gather(self, own: "torch.Tensor", share: Sequence[int], texts: int) -> "torch.Tensor":
        """All vectors (texts, dim) from each rank's own (its texts, dim); the gradient flows to the own ones only."""
        import torch

        if self.count == 1:
            return own
        import torch.distributed as distributed

        # Ranks hold at most one text more or less than another: pad to the largest share, then drop the padding.
        largest = -(-texts // self.count) + 1
        padded = own.new_zeros(largest, own.shape[1])
        padded[: len(own)] = own.detach()
        indices = torch.full((largest,), -1, dtype=torch.long, device=own.device)
        indices[: len(own)] = torch.tensor(share, dtype=torch.long, device=own.device)
        vectors = [torch.empty_like(padded) for _ in range(self.count)]
        places = [torch.empty_like(indices) for _ in range(self.count)]
        distributed.all_gather(vectors, padded)
        distributed.all_gather(places, indices)
        joined, place = torch.cat(vectors), torch.cat(places)
        everything = own.new_zeros(texts, own.shape[1])
        everything = everything.index_copy(0, place[place >= 0], joined[place >= 0])
        return everything.index_copy(0, indices[: len(own)], own)

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
