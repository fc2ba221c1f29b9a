"""`python -m benchmarks.gpu RESULTS`: both sides in one run, one JSON line a measurement, a table at the end.

Needs sentence-transformers, datasets and peft. Without a CUDA device everything shrinks, to try the program out.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import numpy as np
import torch

from benchmarks.gpu import correctness, ours
from benchmarks.gpu.flash_attention import write_package
from benchmarks.gpu.workload import SHAPES, Shape, encoding_flops, save_checkpoint, shrunk, training_flops
from embed_assets.encoder.fused import fused_memory_bytes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REAL = DEVICE == "cuda"
PEER_JOBS = (
    "qodo:padding-free:128:0:6", "qodo:sdpa:128:0:4", "qodo:padding-free:32:0:12", "qodo:sdpa:32:0:10",
    "qodo:padding-free:128:1:4", "encode:qodo:padding-free:32:2000", "encode:qodo:padding-free:128:2000",
    "encode:qodo:sdpa:32:1500", "encode:qodo:sdpa:128:1500",
    "e5-large:padding-free:128:0:10", "jina-v3:padding-free:128:0:10", "minilm:padding-free:128:0:16",
)  # fmt: skip
TRAININGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("qodo", {"batch": 128, "steps": 20, "warm_up": 4}),
    ("qodo", {"batch": 32, "steps": 40, "warm_up": 30}),
    ("qodo", {"batch": 128, "negatives": 1, "steps": 8, "warm_up": 3}),
    ("qodo", {"batch": 512, "steps": 4, "warm_up": 2}),
    ("qodo", {"batch": 128, "steps": 4, "warm_up": 2, "recomputed": 28}),
    ("qodo", {"batch": 32, "steps": 8, "warm_up": 3, "recomputed": 28}),
    ("e5-large", {"batch": 128, "steps": 24, "warm_up": 14}),
    ("jina-v3", {"batch": 128, "steps": 24, "warm_up": 14}),
    ("minilm", {"batch": 128, "steps": 40, "warm_up": 16}),
)


def main() -> None:
    results = Path(sys.argv[1])
    results.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        (results / "results.jsonl").open("w") as lines,
    ):
        run_all(Path(folder), lines)


def run_all(folder: Path, lines: Any) -> None:
    """Every measurement, written as it comes: a run that is cut short keeps what it has."""

    def emit(record: dict[str, Any]) -> None:
        print(json.dumps(record), flush=True)
        lines.write(json.dumps(record) + "\n")
        lines.flush()

    def measured(measure: Callable[[], dict[str, Any]], **about: Any) -> None:
        started = time.perf_counter()
        try:
            record = about | measure()
        except Exception as error:  # noqa: BLE001 - written beside the other measurements
            record = about | {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        gc.collect()
        if REAL:
            torch.cuda.empty_cache()
        emit(record | {"seconds": round(time.perf_counter() - started, 1)})

    emit(environment())
    paths = {name: save_checkpoint(_shape(name), folder / name, DEVICE) for name in SHAPES}
    for name, options in TRAININGS:
        measured(partial(train, name, paths[name], **options), side="ours", what="train", model=name, **options)
    peer(folder, emit)
    for tokens in (16_384, 32_768):
        measured(partial(encode, "qodo", paths["qodo"], tokens), side="ours", what="encode", batch_tokens=tokens)
    for name in ("qodo", "e5-large"):
        measured(partial(agreement, name, paths[name]), model=name)
    both = ["packed", "fused"] if REAL else ["fused"]
    measured(
        lambda: {"loss": correctness.final_losses(_shape("minilm"), paths["minilm"], DEVICE, paths=both)},
        model="minilm",
    )


def agreement(name: str, path: Path) -> dict[str, Any]:
    return {"agreement": correctness.compare(_shape(name), path, DEVICE, rows=8)}


def train(name: str, path: Path, **options: Any) -> dict[str, Any]:
    shape = _shape(name)
    if not REAL:
        options |= {"batch": 4, "steps": 3, "warm_up": 2}
    run = ours.train(shape, path, DEVICE, path_name="fused", tiny=not REAL, **options)
    flops = float(np.mean([training_flops(shape, lengths) for lengths in run.lengths]))
    tokens = int(np.mean([lengths.sum() for lengths in run.lengths]))
    config = _config(shape)
    return {
        "samples_per_second": run.samples_per_second,
        "step_seconds": float(np.median(run.step_seconds)) if run.step_seconds else None,
        "tokens_per_step": tokens,
        "model_tflops": flops * run.samples_per_second / options["batch"] / 1e12,
        "peak_gib": run.peak_gib,
        "estimated_gib": fused_memory_bytes(config, tokens, options.get("recomputed", 0)) / 2**30,
        "warm_up_seconds": run.warm_up_seconds,
    }


def encode(name: str, path: Path, batch_tokens: int) -> dict[str, Any]:
    shape = _shape(name)
    run = ours.encode(shape, path, DEVICE, texts=6000 if REAL else 40, batch_tokens=batch_tokens, path_name="fused")
    rate = run["texts_per_second"]
    flops = encoding_flops(shape, run["lengths"]) / len(run["lengths"])
    return {"texts_per_second": rate, "model_tflops": rate * flops / 1e12, "peak_gib": run["peak_gib"]}


def peer(folder: Path, emit: Callable[[dict[str, Any]], None]) -> None:
    """The other side's process; its lines are passed on as they come."""
    stand_in = write_package(
        folder / "stand_in"
    )  # before the process starts: a path that is missing then stays missing
    command = [sys.executable, "-m", "benchmarks.gpu.peer", str(folder), *PEER_JOBS]
    searched = os.pathsep.join([str(stand_in), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": searched})
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith('{"side"'):
            emit(json.loads(line))
    if process.wait():
        emit({"side": "sentence-transformers", "error": f"the process ended with {process.returncode}"})


def environment() -> dict[str, Any]:
    """Hardware, versions, and the card's ceilings as measured here and now."""
    names = ("torch", "triton", "transformers", "peft", "sentence-transformers")
    about: dict[str, Any] = {name: version(name) for name in names if name != "triton" or REAL}
    if REAL:
        about |= {"device": torch.cuda.get_device_name(), "matmul_tflops": ceiling()}
    return about


def ceiling() -> float:
    """8192^3 bfloat16 products per second on random data, in TFLOP/s: the median of sustained rounds of 50."""
    left, right = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    rates = []
    for _ in range(8):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(50):
            torch.mm(left, right)
        torch.cuda.synchronize()
        rates.append(50 * 2 * 8192**3 / (time.perf_counter() - started) / 1e12)
    return float(np.median(rates[2:]))


def _shape(name: str) -> Shape:
    return SHAPES[name] if REAL else shrunk(SHAPES[name])


def _config(shape: Shape) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(shape.model_type, **shape.sizes)


if __name__ == "__main__":
    main()
