"""The start of a run: the adapter in its place, the path, the precision, the memory plan, and what was done before."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.checkpoints.warm_start import WarmStart
from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.paths import choose_path
from embed_assets.training.adapter import adapter_parameters, add_adapter
from embed_assets.training.data import TrainingData
from embed_assets.training.lora import has_fast_bfloat16, speed_up_adapter
from embed_assets.training.memory import MemoryPlan, largest_step_tokens, plan_memory
from embed_assets.training.ranks import Ranks
from embed_assets.training.recipe import Recipe
from embed_assets.training.rehearsal import Rehearsal
from embed_assets.training.resume import Progress, load_progress
from embed_assets.training.warm_start import begin_from

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Run:
    """A run that has begun. The loop changes the plan and the progress."""

    encoder: Encoder
    recipe: Recipe
    ranks: Ranks
    adapted: Any
    """PEFT's wrapper around the encoder's model."""
    parameters: "dict[str, torch.nn.Parameter]"
    optimizer: "torch.optim.Optimizer"
    path: str
    precision: str
    """Of the large matrix products."""
    plan: MemoryPlan
    progress: Progress

    @property
    def on_cuda(self) -> bool:
        return self.encoder.device.type == "cuda"


def start_run(
    encoder: Encoder,
    data: TrainingData,
    recipe: Recipe,
    *,
    start: WarmStart | None,
    rehearsal: Rehearsal | None,
    plan: MemoryPlan | None,
    path: str,
    precision: str,
    ranks: Ranks,
    progress_file: Path | None,
    digest: str,
) -> Run:
    """Injects the adapter into the encoder's model; a run that was saved under `digest` is taken up where it was.

    Raises:
        TrainingError: a LoRA target is wrong, or the start's adapter or the saved run is damaged.
        ModelError: the path asked for does not work here.
    """
    import torch

    adapted = add_adapter(encoder, recipe)
    if start is not None:
        begin_from(encoder.model, start, recipe)
    encoder.model.eval()  # no dropout, so that every path computes the same
    parameters = adapter_parameters(encoder.model)
    kind: dict[str, Any] = {"fused": True} if encoder.device.type == "cuda" else {"foreach": True}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, **kind
    )
    chosen = choose_path(encoder, path, level=logging.INFO)
    precision = _speed_up(encoder, chosen, precision)
    logger.info("large products in %s", precision)
    plan = plan or _plan(encoder, data, recipe, rehearsal, chosen, ranks)
    saved = load_progress(progress_file, digest, encoder.model, optimizer) if progress_file else None
    return Run(
        encoder=encoder, recipe=recipe, ranks=ranks, adapted=adapted, parameters=parameters, optimizer=optimizer,
        path=chosen, precision=precision, plan=plan, progress=saved or Progress(),
    )  # fmt: skip


def _plan(
    encoder: Encoder, data: TrainingData, recipe: Recipe, rehearsal: Rehearsal | None, path: str, ranks: Ranks
) -> MemoryPlan:
    """The memory plan for these rows, said in the log."""
    tokens = largest_step_tokens(data, recipe.batch_size, seed=recipe.seed, rehearsal=rehearsal, ranks=ranks.count)
    plan = plan_memory(encoder, step_tokens=tokens, path=path, rank=recipe.lora_rank)
    logger.info("%s", plan.reason)
    return plan


def _speed_up(encoder: Encoder, path: str, precision: str) -> str:
    """Puts the fast LoRA layers in place where they run, and says in which precision the large products are."""
    if path not in ("padded", "flat") or encoder.device.type != "cpu":
        return encoder.precision
    bfloat16 = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16())
    if path == "flat":
        from embed_assets.encoder.flat_lora import lora_stack

        lora_stack(encoder, bfloat16=bfloat16)
    else:
        speed_up_adapter(encoder.model, bfloat16=bfloat16)
    return "bfloat16" if bfloat16 else "float32"
