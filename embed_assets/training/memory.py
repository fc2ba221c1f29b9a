"""The memory plan: made before the first step, so that memory is never found to be short in the middle of one.

The batch of negatives stays what the recipe asks for. Where its activations do not fit, the step runs twice
(Gao et al., 2021, GradCache): once without a graph for all vectors and the loss's gradient at them, once more in
micro-batches to carry that gradient into the weights. The result is the same, exactly.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.encoder.encoder import CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS, Encoder
from embed_assets.encoder.fused_memory import (
    activation_bytes,
    adapter_bytes,
    free_device_bytes,
    layer_weights,
    layers_to_recompute,
)
from embed_assets.training.data import TrainingData, epoch_batches
from embed_assets.training.rehearsal import Rehearsal

if TYPE_CHECKING:
    import torch

SHARE_OF_FREE = 0.6
"""The rest is for the optimizer, the allocator's waste and everybody else."""
FUSED_SHARE_OF_FREE = 0.95
"""The fused path's need is known within a few hundredths."""
GRAPHS_SHARE_OF_FREE = 0.85
"""With CUDA graphs: rows are padded further, and the graphs' common memory has gaps."""
FUSED_RESERVE_BYTES = 512 << 20
"""Matrix products' workspaces, the loss, the batch itself."""
SMALLEST_MICRO_BATCH = 256
EFFICIENT_MICRO_BATCH = 4096
"""Tokens below which a micro-batch leaves a GPU idle: then recomputing is cheaper than keeping."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """How one step fits into memory."""

    micro_batch_tokens: int
    """Tokens of one forward pass, padding included."""
    cached_gradients: bool
    """Whether the step runs twice, so that only one micro-batch's activations are held at a time."""
    reason: str
    """Said in the log before the first step."""
    activation_budget: int | None = None
    """Bytes that one pass may keep for its backward: the fused path recomputes layers where it would be more."""
    retried: bool = False
    """Whether memory ran out once in spite of a plan, and this is the smaller one."""

    def smaller(self) -> "MemoryPlan":
        """What to try after running out of memory in spite of the plan."""
        tokens = max(SMALLEST_MICRO_BATCH, self.micro_batch_tokens // 2)
        budget = None if self.activation_budget is None else self.activation_budget // 2
        reason = f"retried smaller after running out of memory: micro-batches of {tokens:,} tokens, gradients cached"
        return MemoryPlan(
            micro_batch_tokens=tokens, cached_gradients=True, activation_budget=budget, retried=True, reason=reason
        )


def plan_memory(
    encoder: Encoder, *, step_tokens: int, path: str = "padded", rank: int = 16, free_bytes: int | None = None
) -> MemoryPlan:
    """The plan for steps of about `step_tokens` tokens.

    Args:
        path: that the rows take.
        rank: of the adapter.
        free_bytes: memory that may be used; measured when not given.
    """
    free = free_memory(encoder.device) if free_bytes is None else free_bytes
    if path == "fused":
        return _plan_fused(encoder.model.config, encoder.pooling, step_tokens, free, rank)
    budget = int(free * SHARE_OF_FREE)
    per_token = activation_bytes_per_token(encoder)
    preferred = CPU_BATCH_TOKENS if encoder.device.type == "cpu" else DEVICE_BATCH_TOKENS
    needed = step_tokens * per_token
    said = f"a step of {step_tokens:,} tokens needs about {needed / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free"
    if needed <= budget:
        return MemoryPlan(micro_batch_tokens=preferred, cached_gradients=False, reason=f"{said}: in one go")
    fitting = max(SMALLEST_MICRO_BATCH, min(preferred, budget // per_token))
    reason = f"{said}: gradients cached, micro-batches of {fitting:,} tokens"
    return MemoryPlan(micro_batch_tokens=fitting, cached_gradients=True, reason=reason)


def _plan_fused(config: Any, pooling: str, step_tokens: int, free: int, rank: int) -> MemoryPlan:
    """In one go; where that is too much, recomputing some layers; where that is too, with cached gradients."""
    depth = int(config.num_hidden_layers)
    from embed_assets.encoder.fused_graphs import graph_multiple

    graphs = graph_multiple(step_tokens, layer_weights(config)) is not None
    share = GRAPHS_SHARE_OF_FREE if graphs else FUSED_SHARE_OF_FREE
    budget = int(free * share) - FUSED_RESERVE_BYTES - adapter_bytes(config, rank=rank)

    def activations(tokens: int, recomputed: int = 0) -> int:
        return activation_bytes(config, tokens, recomputed, rank=rank, pooling=pooling)

    needed = activations(step_tokens)
    recomputed = layers_to_recompute(config, step_tokens, budget, pooling=pooling)
    said = f"a step of {step_tokens:,} tokens needs about {needed / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free"
    if activations(step_tokens, recomputed) <= budget:
        how = f"{recomputed} of {depth} layers recompute their widest activations" if recomputed else "in one go"
        return MemoryPlan(
            micro_batch_tokens=step_tokens, cached_gradients=False, activation_budget=budget, reason=f"{said}: {how}"
        )
    fitting = budget // activations(1)
    if fitting < EFFICIENT_MICRO_BATCH:
        fitting = budget // activations(1, depth)
    fitting = max(SMALLEST_MICRO_BATCH, fitting // SMALLEST_MICRO_BATCH * SMALLEST_MICRO_BATCH)
    return MemoryPlan(
        micro_batch_tokens=fitting, cached_gradients=True, activation_budget=max(0, budget),
        reason=f"{said}: gradients cached, micro-batches of {fitting:,} tokens",
    )  # fmt: skip


def largest_step_tokens(
    data: TrainingData, batch_size: int, *, seed: int, rehearsal: Rehearsal | None = None, ranks: int = 1
) -> int:
    """Tokens of the first pass's largest step, a rank's share: what memory must suffice for."""
    tokens = data.row_tokens()  # (rows,)
    batches = epoch_batches(data, batch_size, seed=seed, epoch=0)
    beside = [rehearsal.tokens(step) if rehearsal else 0 for step in range(len(batches))]
    return -(-int(max(tokens[rows].sum() + more for rows, more in zip(batches, beside, strict=True))) // ranks)


def activation_bytes_per_token(encoder: Encoder) -> int:
    """What autograd holds for one token of a step, all layers together (measured: docs/training.md)."""
    config: Any = encoder.model.config
    hidden, layers = int(config.hidden_size), int(config.num_hidden_layers)
    ffn = int(getattr(config, "intermediate_size", 4 * hidden))
    size = next(encoder.model.parameters()).element_size()
    return layers * (16 * hidden + 4 * ffn) * size


def free_memory(device: "torch.device") -> int:
    """Bytes that this process may still take on `device`; on the CPU the container's limit counts too."""
    if device.type == "cuda":
        return free_device_bytes(device)
    import psutil

    available = int(psutil.virtual_memory().available)
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    return available if limit is None or used is None else max(0, min(available, limit - used))


def used_memory(device: "torch.device") -> int:
    """Bytes that this process holds on `device` (CUDA: at its peak)."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_reserved(device))
    import psutil

    return int(psutil.Process(os.getpid()).memory_info().rss)


def _cgroup_bytes(name: str) -> int | None:
    try:
        value = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(value) if value.isdigit() else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    import torch

    words = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in words or "can't allocate memory" in words)
    )
