"""Token states to one unit vector per row."""

from typing import TYPE_CHECKING

from embed_assets import models

if TYPE_CHECKING:
    import torch


def pool_padded(
    states: "torch.Tensor",  # (rows, tokens, dim), padded on the right
    lengths: "torch.Tensor",  # (rows,)
    pooling: models.Pooling,
) -> "torch.Tensor":  # (rows, dim)
    """Mean over the real tokens, the last real token, or the first. Sums are taken in float32."""
    import torch

    if pooling == "cls":
        return states[:, 0].float()
    if pooling == "last":
        return states[torch.arange(len(states), device=states.device), lengths - 1].float()
    real = torch.arange(states.shape[1], device=states.device) < lengths[:, None]  # (rows, tokens)
    return torch.einsum("rtd,rt->rd", states.float(), real.float()) / lengths[:, None]


def normalise(vectors: "torch.Tensor") -> "torch.Tensor":
    """Unit rows."""
    import torch

    return torch.nn.functional.normalize(vectors, dim=-1)
