"""Progress of a run on disk, so that an interrupted one goes on where it was, with the same result.

One safetensors file, replaced atomically: adapter, optimizer moments, the best pass so far, and in its header the
step, the curve and which run it belongs to. Shuffles follow from seed and epoch, and nothing else is random.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.files import write_file
from embed_assets.training.adapter import adapter_parameters, adapter_state, load_adapter_state
from embed_assets.training.curve import StepRecord
from embed_assets.training.errors import TrainingError

if TYPE_CHECKING:
    import torch

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(kw_only=True, eq=False)
class Progress:
    """How far a run has come. Changed by the loop, step by step."""

    step: int = 0
    """Finished steps."""
    curve: list[StepRecord] = field(default_factory=list)
    validation_before: float | None = None
    best_mrr: float = -1.0
    best_epoch: int = 0
    best_state: "dict[str, torch.Tensor] | None" = None
    seconds: float = 0.0


def save_progress(
    file: Path, run: str, progress: Progress, model: "torch.nn.Module", optimizer: "torch.optim.Optimizer"
) -> None:
    """Writes everything that the next step depends on. `run` is the digest of what is trained on what."""
    from safetensors.torch import save_file

    tensors = {f"adapter/{name}": tensor for name, tensor in adapter_state(model).items()}
    for name, parameter in adapter_parameters(model).items():
        for moment in MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment].detach().clone()
    for name, tensor in (progress.best_state or {}).items():
        tensors[f"best/{name}"] = tensor
    header = {
        "run": run,
        "step": progress.step,
        "curve": [asdict(record) for record in progress.curve],
        "validation_before": progress.validation_before,
        "best_mrr": progress.best_mrr,
        "best_epoch": progress.best_epoch,
        "seconds": progress.seconds,
    }
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_file(file, lambda path: save_file(contiguous, path, metadata={"progress": json.dumps(header)}))


def load_progress(
    file: Path, run: str, model: "torch.nn.Module", optimizer: "torch.optim.Optimizer"
) -> Progress | None:
    """Puts a saved run back into model and optimizer; None when there is none, or it is another run's.

    Raises:
        TrainingError: the file is damaged.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as saved:
            header: dict[str, Any] = json.loads((saved.metadata() or {})["progress"])
            tensors = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise TrainingError(f"{file} is damaged: {error}; delete it to train from the start") from error
    if header["run"] != run:
        return None
    parameters = adapter_parameters(model)
    load_adapter_state(model, _part(tensors, "adapter"))
    for moment in MOMENTS:
        for name, tensor in _part(tensors, moment).items():
            state = optimizer.state[parameters[name]]
            # The fused optimizer of a GPU counts there, every other one on the host.
            counter = parameters[name].device if optimizer.defaults.get("fused") else torch.device("cpu")
            state["step"] = torch.tensor(float(header["step"]), device=counter)
            state[moment] = tensor.to(parameters[name].device)
    best = {name: tensor.to(parameters[name].device) for name, tensor in _part(tensors, "best").items()}
    return Progress(
        step=header["step"],
        curve=[StepRecord(**record) for record in header["curve"]],
        validation_before=header["validation_before"],
        best_mrr=header["best_mrr"],
        best_epoch=header["best_epoch"],
        best_state=best or None,
        seconds=header["seconds"],
    )


def _part(tensors: "dict[str, torch.Tensor]", prefix: str) -> "dict[str, torch.Tensor]":
    return {name.split("/", 1)[1]: tensor for name, tensor in tensors.items() if name.split("/", 1)[0] == prefix}
