"""A short night as it really runs: a fresh process, rows that were never seen, everything that happens once counted in.

`python -m benchmarks.gpu.fresh FOLDER JOB` is our side of it; the other side is a job of `benchmarks.gpu.peer`. Both
train 1,000 rows in three passes at batch 32 and stamp every step's end. The yardstick is a part of that: steps 7 to
24, each with rows that no step before had. Everything a step needs for the first time falls on both sides alike:
compiled kernels, memory for a new shape, graphs.
"""

import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.workload import LONGEST, SHAPES, Shape, save_checkpoint, shrunk

WINDOW = (6, 24)
"""Steps done before the yardstick's window, and at its end."""


def figures(stamps: Sequence[float], step_rows: Sequence[int], *, started: float) -> dict[str, Any]:
    """What a side's stamps say.

    Args:
        stamps: by `time.perf_counter`: the training's begin (the model is loaded), then the end of every step.
        step_rows: rows of each step.
        started: by `time.time`: when the process was started; it is about to end now.
    """
    begin, *ends = stamps
    first, last = (min(step, len(ends)) for step in WINDOW)
    window = ends[last - 1] - ends[min(first, last - 1) - 1]
    per_pass = -(-len(ends) // 3)
    passes = [0, per_pass, 2 * per_pass, len(ends)]
    return {
        "window_samples_per_second": sum(step_rows[first:last]) / window,
        "training_seconds": ends[-1] - begin,
        "process_seconds": time.time() - started,
        "rows_trained": sum(step_rows),
        "samples_per_second": sum(step_rows) / (ends[-1] - begin),
        "pass_samples_per_second": [
            round(sum(step_rows[a:b]) / (stamps[b] - stamps[a]), 1) for a, b in itertools.pairwise(passes)
        ],
        "step_milliseconds": [round(1e3 * seconds) for seconds in np.diff(stamps)],
    }


def of_the_product(
    shape: Shape, folder: Path, device: str, *, batch: int, rows: int, passes: int, started: float
) -> dict[str, Any]:  # fmt: skip
    """Loads the model; then, on the clock, reads and tokenises the rows and trains."""
    from benchmarks.gpu.ours import pairs_file, read_rows, recipe_for
    from embed_assets.encoder.load import load_encoder
    from embed_assets.training.curve import StepRecord
    from embed_assets.training.data import epoch_batches
    from embed_assets.training.loop import train

    pairs_file(folder, shape, rows, 0, tiny=device == "cpu")
    encoder = load_encoder(folder, device=device, max_tokens=LONGEST)
    stamps = [time.perf_counter()]

    def observe(record: StepRecord, steps: int) -> None:
        stamps.append(time.perf_counter())

    data = read_rows(encoder, folder, shape, rows, 0, tiny=device == "cpu")
    recipe = recipe_for(shape, rows=rows, batch=batch, epochs=passes)
    result = train(encoder, data, recipe, observe=observe)
    step_rows = [
        len(step) for epoch in range(passes) for step in epoch_batches(data, batch, seed=recipe.seed, epoch=epoch)
    ]
    return figures(stamps, step_rows, started=started) | {"path": result.path, **_memory(device)}


def of_the_peer(
    shape: Shape, folder: Path, device: str, *, attention: str, batch: int, rows: int, passes: int, started: float
) -> dict[str, Any]:  # fmt: skip
    """Loads the model; then, on the clock, its trainer tokenises and trains. `shapes` are of padded token matrices."""
    from benchmarks.gpu.peer import Trainer

    trainer = Trainer(shape, folder, device, attention=attention, batch=batch, rows=rows)
    shapes: list[tuple[int, ...]] = []
    at_step: list[tuple[int, int]] = []
    trainer.model[0].register_forward_pre_hook(lambda module, inputs: shapes.append(_padded_shape(inputs)))
    trainer.on_step = lambda: at_step.append((len(set(shapes)), _memory(device).get("device_allocations", 0)))
    begun = time.perf_counter()
    trainer.run(num_train_epochs=passes)
    last = rows % batch or batch
    step_rows = ([batch] * (-(-rows // batch) - 1) + [last]) * passes
    return figures([begun, *trainer.stamps[1:]], step_rows, started=started) | {
        "shapes_and_device_allocations_by_step": at_step,
        **_memory(device),
    }


def _padded_shape(inputs: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(inputs[0]["input_ids"].shape)


def _memory(device: str) -> dict[str, Any]:
    if device != "cuda":
        return {}
    import torch

    statistics = torch.cuda.memory_stats()
    return {
        "peak_gib": torch.cuda.max_memory_reserved() / 2**30,
        "device_allocations": statistics.get("num_device_alloc", 0),
        "allocator_retries": statistics.get("num_alloc_retries", 0),
    }


def main(folder: Path, job: dict[str, Any]) -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = SHAPES[job["model"]] if device == "cuda" else shrunk(SHAPES[job["model"]])
    path = save_checkpoint(shape, folder / job["model"], device)
    options = {key: value for key, value in job.items() if key not in ("what", "model", "kernels")}
    print(json.dumps({"side": "ours", **job, **of_the_product(shape, path, device, **options)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
