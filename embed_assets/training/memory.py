"""The memory plan: made before the first step, so that memory is never found to be short in the middle of one.

The batch of negatives stays what the recipe asks for. Where its activations do not fit, the step runs twice
(Gao et al., 2021, GradCache): once without a graph for all vectors and the loss's gradient at them, once more in
micro-batches to carry that gradient into the weights. The result is the same, exactly.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.encoder.encoder import CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS, Encoder

if TYPE_CHECKING:
    import torch

SHARE_OF_FREE = 0.6
"""The rest is for the optimizer, the allocator's waste and everybody else."""
SMALLEST_MICRO_BATCH = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """How one step fits into memory."""

    micro_batch_tokens: int
    """Tokens of one forward pass, padding included."""
    cached_gradients: bool
    """Whether the step runs twice, so that only one micro-batch's activations are held at a time."""
    reason: str
    """Said in the log before the first step."""

    def smaller(self) -> "MemoryPlan":
        """What to try after running out of memory in spite of the plan."""
        tokens = max(SMALLEST_MICRO_BATCH, self.micro_batch_tokens // 2)
        reason = f"retried smaller after running out of memory: micro-batches of {tokens:,} tokens, gradients cached"
        return replace(self, micro_batch_tokens=tokens, cached_gradients=True, reason=reason)


def plan_memory(encoder: Encoder, *, step_tokens: int, free_bytes: int | None = None) -> MemoryPlan:
    """The plan for steps of about `step_tokens` tokens.

    Args:
        free_bytes: memory that may be used; measured when not given.
    """
    free = free_memory(encoder.device) if free_bytes is None else free_bytes
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
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    available = int(psutil.virtual_memory().available)
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    return available if limit is None or used is None else max(0, min(available, limit - used))


def used_memory(device: "torch.device") -> int:
    """Bytes that this process holds on `device` (CUDA: at its peak)."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
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
