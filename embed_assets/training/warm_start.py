"""Puts another store's adapter in the place of the fresh one, before the first step.

It is continued in place, A and B both: what this run exports is the whole change since the base model, the start's and
its own, scaled once. A saved adapter carries its scale already, in B; that is taken out first, so that a run which
learns nothing exports the very adapter it started from. Scaling only what is new would take both adapters side by
side, of twice the rank, and is not what was measured (docs/experiments.md, "warm start").
"""

from typing import TYPE_CHECKING

from embed_assets.checkpoints.warm_start import WarmStart
from embed_assets.training.adapter import adapter_parameters
from embed_assets.training.errors import TrainingError
from embed_assets.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

SAVED = "base_model.model."
"""How PEFT begins the names of the weights that it saves."""


def require_fitting(start: WarmStart, recipe: Recipe, *, base_name: str, base_digest: str) -> None:
    """
    Raises:
        TrainingError: the adapter belongs to another base model or to other layers, or has a higher rank.
    """
    who = f"training.start_from: the adapter of {start.path}"
    if start.base_digest != base_digest:
        raise TrainingError(
            f"{who} changes base model {start.base_name} ({start.base_digest[:12]}), this store's is {base_name} "
            f"({base_digest[:12]}); name one of the same base model"
        )
    if set(start.targets) != set(recipe.lora_targets):
        raise TrainingError(
            f"{who} changes the layers {', '.join(start.targets)}, this recipe {', '.join(sorted(recipe.lora_targets))}"
            "; name one of the same layers"
        )
    if start.rank > recipe.lora_rank:
        raise TrainingError(
            f"{who} has rank {start.rank}, training.lora_rank is {recipe.lora_rank}; allowed: {start.rank} or more, or "
            "unset, which takes the adapter's"
        )


def begin_from(model: "torch.nn.Module", start: WarmStart, recipe: Recipe) -> None:
    """Fills the fresh adapter in `model` with what the start has learnt, unscaled.

    A higher rank than the start's keeps the fresh rows of A, with columns of zeros in B, which add nothing and learn.

    Raises:
        TrainingError: the file is damaged, holds values that are no numbers, or belongs to other layers.
    """
    import torch

    saved = _read(start)
    parameters = adapter_parameters(model)
    names = {SAVED + name.replace(".default.", "."): parameter for name, parameter in parameters.items()}
    if other := sorted(names.keys() ^ saved.keys()):
        raise TrainingError(
            f"training.start_from: {len(other)} weights are in the adapter of {start.path} or in this recipe's, not in "
            f"both, such as {other[0]}; name one of the same layers"
        )
    factor = torch.tensor((start.alpha / start.rank) / (recipe.lora_alpha / recipe.lora_rank))
    with torch.no_grad():
        for name, parameter in names.items():
            tensor = saved[name]
            if "lora_A" in name:  # (rank, in)
                _require_shape(start, name, tensor, (start.rank, parameter.shape[1]))
                parameter[: start.rank] = tensor.to(parameter)
            else:  # (out, rank)
                _require_shape(start, name, tensor, (parameter.shape[0], start.rank))
                unscaled = tensor / torch.full_like(tensor, start.delta_scale)  # exact where a scalar's inverse is not
                parameter.zero_()
                parameter[:, : start.rank] = (unscaled * factor).to(parameter)


def _read(start: WarmStart) -> "dict[str, torch.Tensor]":
    """Every weight in float32 on the host."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        saved = {name: tensor.float() for name, tensor in load_file(start.weights).items()}
    except (SafetensorError, OSError) as error:
        raise TrainingError(
            f"training.start_from: {start.weights} is damaged: {error}; name another adapter"
        ) from error
    for name, tensor in saved.items():
        if not tensor.isfinite().all():
            raise TrainingError(
                f"training.start_from: {start.weights} is damaged: {name} holds values that are no numbers"
            )
    return saved


def _require_shape(start: WarmStart, name: str, tensor: "torch.Tensor", expected: tuple[int, int]) -> None:
    if tuple(tensor.shape) != expected:
        raise TrainingError(
            f"training.start_from: {start.weights} is damaged: {name} has shape {tuple(tensor.shape)}, not {expected}"
        )
