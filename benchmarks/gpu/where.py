"""Where a step's time goes: the device's kernels over a few steps of the product's loop, by kind."""

import re
from pathlib import Path
from typing import Any

from benchmarks.gpu.ours import train_passes
from benchmarks.gpu.workload import Shape

KINDS = (
    ("attention", r"flash|_attend"),
    ("swiglu, gelu and their low-rank gradients", r"_activate"),
    ("norms", r"_norm"),
    ("rotary", r"_rotat"),
    ("optimizer", r"adam"),
    ("copies and fills", r"memcpy|memset|copy|fill|cat|index"),
    ("matrix products", r"gemm|cutlass|nvjet|xmma|splitk|sm90"),
    ("sums", r"reduce"),
)


def time_by_kind(shape: Shape, folder: Path, *, batch: int, rows: int, passes: int) -> dict[str, Any]:
    """Milliseconds a step by kind of kernel, the twelve longest kernels, and the share of time the device worked.

    The whole training is recorded, its first pass too, so that the figures are a little above those of steady steps.
    """
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        run = train_passes(shape, folder, "cuda", batch=batch, rows=rows, passes=passes)
    steps = rows // batch * (passes + 2)
    kinds: dict[str, float] = {}
    kernels = []
    for event in profiler.key_averages():
        milliseconds = event.device_time_total / 1e3 / steps
        kind = next((kind for kind, words in KINDS if re.search(words, event.key, re.IGNORECASE)), "other")
        kinds[kind] = kinds.get(kind, 0.0) + milliseconds
        kernels.append((round(milliseconds, 2), event.count // steps, event.key[:90]))
    return {
        "milliseconds_by_kind": {kind: round(value, 2) for kind, value in sorted(kinds.items(), key=lambda kv: -kv[1])},
        "kernels": sorted(kernels, reverse=True)[:16],
        "milliseconds_of_kernels": round(sum(kinds.values()), 1),
        "samples_per_second": run.samples_per_second,
    }
