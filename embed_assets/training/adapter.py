"""The LoRA adapter: put into a model, scaled, saved, and merged in float32 into the model that is served."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.load import load_encoder
from embed_assets.training.errors import TrainingError
from embed_assets.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

NAME = "default"
"""PEFT's name for the one adapter there is."""


def add_adapter(encoder: Encoder, recipe: Recipe) -> Any:
    """Injects a fresh adapter into the encoder's model, in place, and returns PEFT's wrapper around it.

    Everything else is frozen. The adapter's output starts at zero, its other half is drawn from the recipe's seed.

    Raises:
        TrainingError: a target is no linear layer of this model.
    """
    import peft
    import torch

    model: Any = encoder.model
    missing = _missing_targets(model, recipe.lora_targets)
    if missing:
        raise TrainingError(
            f"LoRA target {', '.join(missing)} is no linear layer of {type(model).__name__}; it has "
            f"{', '.join(sorted(_linear_names(model)))}"
        )
    config = peft.LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=list(recipe.lora_targets),
        exclude_modules=_excluded(model, recipe.lora_excluded),
        task_type=peft.TaskType.FEATURE_EXTRACTION,
    )
    torch.manual_seed(recipe.seed)
    with _without_peft_remarks():
        adapted = peft.get_peft_model(model, config)
    # Written into the adapter's settings: the name that others know, not a path of this machine.
    config.base_model_name_or_path = encoder.spec.repository if encoder.spec else encoder.path.name
    return adapted


def adapter_parameters(model: "torch.nn.Module") -> dict[str, "torch.nn.Parameter"]:
    """The adapter's weights by name, in a fixed order."""
    found = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(sorted(found.items()))


def adapter_state(model: "torch.nn.Module") -> "dict[str, torch.Tensor]":
    """A copy of the adapter's weights."""
    return {name: parameter.detach().clone() for name, parameter in adapter_parameters(model).items()}


def load_adapter_state(model: "torch.nn.Module", state: "dict[str, torch.Tensor]") -> None:
    """Puts a copy back.

    Raises:
        TrainingError: it belongs to another adapter.
    """
    import torch

    parameters = adapter_parameters(model)
    if parameters.keys() != state.keys() or any(parameters[name].shape != state[name].shape for name in state):
        raise TrainingError("the saved adapter has other layers or another rank than this recipe; train from the start")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])


def scale_adapter(model: "torch.nn.Module", factor: float) -> None:
    """Multiplies what the adapter adds by `factor`, exactly: every layer's B is scaled."""
    import torch

    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            if "lora_B" in name:
                parameter.mul_(factor)


def save_adapter(adapted: Any, directory: Path) -> None:
    """Writes the adapter as PEFT reads it: safetensors and adapter_config.json; the same adapter, the same bytes."""
    # Otherwise PEFT asks the hub whether the vocabulary was changed.
    adapted.save_pretrained(str(directory), safe_serialization=True, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)  # an empty form, to be filled in by hand
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    for name in ("target_modules", "exclude_modules"):  # sets, which every process orders in its own way
        if isinstance(config.get(name), list):
            config[name] = sorted(config[name])
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def merged_encoder(base: Path, adapter: Path, *, max_tokens: int) -> Encoder:
    """The base model with the adapter merged into its weights, both in float32 on the CPU.

    In bfloat16 the sum would lose a sixth of a small change to rounding.

    Raises:
        TrainingError: the adapter does not fit the model, or holds values that are no numbers.
    """
    import peft

    encoder = load_encoder(base, device="cpu", max_tokens=max_tokens, precision="float32")
    try:
        with _without_peft_remarks():
            adapted = peft.PeftModel.from_pretrained(encoder.model, str(adapter))
            adapted.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, OSError) as error:
        raise TrainingError(f"adapter {adapter} cannot be merged into {base}: {error}") from error
    return encoder


@contextmanager
def _without_peft_remarks() -> Iterator[None]:
    """PEFT 0.21 reads an attribute that transformers 5 has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _excluded(model: Any, parts: tuple[str, ...]) -> str | None:
    """A pattern of module paths without an adapter; None where the model has none of them."""
    there = [part for part in parts if any(part in name for name, _ in model.named_modules())]
    return rf".*({'|'.join(there)}).*" if there else None


def _linear_names(model: Any) -> set[str]:
    import torch

    return {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}


def _missing_targets(model: Any, targets: tuple[str, ...]) -> list[str]:
    return sorted(set(targets) - _linear_names(model))
