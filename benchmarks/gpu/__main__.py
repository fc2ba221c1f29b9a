"""`python -m benchmarks.gpu RESULTS [PART...]`: both sides in one run, one JSON line a measurement.

Parts are training, fresh, encoding, memory, profile, agreement and ranks; all of them when none is named. Needs sentence-transformers,
datasets and peft. Without a CUDA device everything shrinks, to try the program out. `report` turns the lines into tables.
"""

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
from typing import Any, TextIO

os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"  # as the product's own job does

import numpy as np
import torch

from benchmarks.gpu import correctness, ours, ranks
from benchmarks.gpu.flash_attention import write_package
from benchmarks.gpu.where import time_by_kind
from benchmarks.gpu.workload import SHAPES, Shape, save_checkpoint, shrunk
from embed_assets.training.flops import attention_flops, linear_parameters, training_flops

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REAL = DEVICE == "cuda"
PARTS = ("training", "fresh", "encoding", "memory", "profile", "agreement", "ranks")
TRAININGS: tuple[tuple[str, dict[str, int]], ...] = (
    ("qodo", {"batch": 128, "rows": 384, "passes": 3}),
    ("qodo", {"batch": 32, "rows": 384, "passes": 3}),
    ("qodo", {"batch": 128, "rows": 384, "passes": 3, "negatives": 1}),
    ("qodo", {"batch": 512, "rows": 1024, "passes": 3}),
    ("e5-large", {"batch": 128, "rows": 512, "passes": 3}),
    ("jina-v3", {"batch": 128, "rows": 512, "passes": 3}),
    ("minilm", {"batch": 128, "rows": 1024, "passes": 3}),
)
PEERS: dict[str, tuple[str, ...]] = {"qodo/32/0": ("padding-free", "sdpa"), "qodo/128/0": ("padding-free", "sdpa")}
"""By model, batch and negatives; padding-free alone where nothing is said. None measures batch 512."""
ALLOCATOR = os.environ["PYTORCH_CUDA_ALLOC_CONF"]
TUNED_PEERS = ("qodo/32/0",)
"""Measured once more with our allocator's setting, which its users would have to know of."""
FRESH = {"batch": 32, "rows": 1000, "passes": 3}
RANKED = {"batches": [128, 512], "rows": 1024}
LIMITS = (("qodo", 128, 384, 40.0), ("qodo", 32, 384, 16.0))
"""Model, batch, rows, and the device memory that the process may take, in GiB."""


def main() -> None:
    results, parts = Path(sys.argv[1]), sys.argv[2:] or list(PARTS)
    results.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        (results / "results.jsonl").open("a") as lines,
    ):
        Session(Path(folder), lines).run(parts)


class Session:
    """The checkpoints of one run, and where its measurements go: a run that is cut short keeps what it has."""

    def __init__(self, folder: Path, lines: TextIO) -> None:
        self.folder, self.lines = folder, lines

    def run(self, parts: list[str]) -> None:
        self.emit(environment())
        if "training" in parts:
            self.training()
        if "fresh" in parts:
            self.fresh()
        if "encoding" in parts:
            self.encoding()
        if "memory" in parts:
            for limit in LIMITS:
                self.measured(partial(self.limited, *limit), side="ours", what="limited", limit_gib=limit[3])
        if "profile" in parts:
            for name, batch in (("qodo", 128), ("qodo", 32), ("minilm", 128)):
                where = partial(time_by_kind, _shape(name), self.path(name), batch=batch, rows=512, passes=2)
                self.measured(where, side="ours", what="profile", model=name, batch=batch)
        if "agreement" in parts:
            self.agreement()
        if "ranks" in parts:
            self.ranks()

    def emit(self, record: dict[str, Any]) -> None:
        print(json.dumps(record), flush=True)
        self.lines.write(json.dumps(record) + "\n")
        self.lines.flush()

    def measured(self, measure: Callable[[], dict[str, Any]], **about: Any) -> None:
        started = time.perf_counter()
        try:
            record = about | measure()
        except Exception as error:  # noqa: BLE001 - written beside the other measurements
            record = about | {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        ours.release()
        self.emit(record | {"seconds": round(time.perf_counter() - started, 1)})

    def path(self, name: str) -> Path:
        return save_checkpoint(_shape(name), self.folder / name, DEVICE)

    def training(self) -> None:
        """All of ours, then all of the other side's in one process."""
        jobs, tuned = [], []
        for name, options in TRAININGS:
            options = options if REAL else options | {"batch": 4, "rows": 12, "passes": 2}
            about = {"what": "train", "model": name, "negatives": 0, **options}
            self.measured(partial(self.train, name, options), side="ours", **about)
            key = f"{name}/{options['batch']}/{options.get('negatives', 0)}"
            attentions = PEERS.get(key, ("padding-free",)) if options["batch"] <= 128 else ()
            jobs += [{**about, "attention": attention} for attention in attentions]
            tuned += [{**about, "attention": attention} for attention in attentions if key in TUNED_PEERS]
        self.peer(jobs)
        self.peer(tuned, allocator=ALLOCATOR)

    def fresh(self) -> None:
        """Each side in fresh processes, in turns; ours first without a compiled kernel anywhere, as on a first night."""
        options = FRESH if REAL else FRESH | {"batch": 4, "rows": 18}
        about = {"what": "fresh", "model": "qodo", **options}
        kernels = {"TRITON_CACHE_DIR": str(self.folder / "kernels")}
        for number, attention in enumerate(("sdpa", "padding-free")):
            job = about | {"kernels": "compiled before" if number else "compiled now"}
            self.child("benchmarks.gpu.fresh", [job], os.environ | kernels)
            self.peer([{**about, "attention": attention}])

    def train(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        run = ours.train_passes(_shape(name), self.path(name), DEVICE, tiny=not REAL, **options)
        config = _config(_shape(name))
        flops = training_flops(config, run.row_lengths, adapter_parameters=run.adapter_parameters)
        last = run.result.curve[-1]
        return {
            "samples_per_second": run.samples_per_second,
            "pass_seconds": [round(value, 3) for value in run.pass_seconds],
            "tokens_per_row": float(run.row_lengths.sum()) / run.rows,
            "model_tflops": flops / float(np.median(run.pass_seconds)) / 1e12,
            "peak_gib": run.peak_gib,
            "peak_allocated_gib": run.peak_allocated_gib,
            "most_tokens": run.most_tokens,
            "tokenising_seconds": run.tokenising_seconds,
            "first_pass_seconds": run.first_pass_seconds,
            "path": run.result.path,
            "plan": run.result.plan.reason,
            "padding_share": last.padding_share,
            "mfu_of_data_sheet": last.mfu,
        }

    def limited(self, name: str, batch: int, rows: int, gib: float) -> dict[str, Any]:
        """A training in a part of the device's memory: the allocator refuses what is more."""
        about = {"model": name, "batch": batch}
        if not REAL:
            return about | self.train(name, {"batch": 4, "rows": 12, "passes": 1})
        torch.cuda.set_per_process_memory_fraction(gib * 2**30 / torch.cuda.get_device_properties(0).total_memory)
        try:
            return about | self.train(name, {"batch": batch, "rows": rows, "passes": 2})
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    def encoding(self) -> None:
        texts = 2000 if REAL else 40
        self.measured(partial(self.encode, "qodo", texts), side="ours", what="encode", model="qodo")
        jobs = [
            {"what": "encode", "model": "qodo", "attention": attention, "batch": batch, "texts": texts}
            for attention in ("padding-free", "sdpa")
            for batch in (32, 128)
        ]
        self.peer(jobs)

    def encode(self, name: str, texts: int) -> dict[str, Any]:
        run = ours.encode(_shape(name), self.path(name), DEVICE, texts=texts)
        lengths = run.pop("lengths")
        config = _config(_shape(name))
        flops = 2 * linear_parameters(config) * float(lengths.sum()) + attention_flops(config, lengths)
        tflops = flops / float(np.median(run["seconds"])) / 1e12
        return run | {"texts": texts, "tokens_per_text": float(lengths.mean()), "model_tflops": tflops}

    def agreement(self) -> None:
        paths = ["packed", "fused"] if REAL else ["fused"]
        for name in SHAPES:
            compare = partial(correctness.compare, _shape(name), self.path(name), DEVICE, rows=8, paths=paths)
            self.measured(compare, what="agreement", model=name)
        for name in ("qodo", "minilm"):
            shape = SHAPES[name] if name == "minilm" and REAL else shrunk(SHAPES[name], 512 if REAL else 64)
            folder = save_checkpoint(shape, self.folder / f"{name}-loss", DEVICE)
            size = {} if REAL else {"batch": 4, "batches": 3, "passes": 2}
            losses = partial(correctness.final_losses, shape, folder, DEVICE, paths=paths, **size)
            self.measured(losses, what="final loss", model=name, hidden=shape.sizes["hidden_size"])

    def ranks(self) -> None:
        if REAL and torch.cuda.device_count() < 2:
            self.emit({"what": "ranks", "skipped": "it takes two GPUs"})
            return
        options: dict[str, Any] = {"model": "qodo", **(RANKED if REAL else {"batches": [6, 12], "rows": 24})}
        self.path("qodo")
        compared = partial(ranks.compare, self.folder, _shape("qodo"), DEVICE, **options)
        self.measured(compared, side="ours", what="ranks", **options)

    def peer(self, jobs: list[dict[str, Any]], allocator: str = "") -> None:
        """The other side's process, with torch's allocator as installed or set; its lines are passed on as they come."""
        stand_in = write_package(self.folder / "stand_in")  # before the process starts: a missing path stays missing
        searched = os.pathsep.join([str(stand_in), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": searched, "TOKENIZERS_PARALLELISM": "true"}
        environment.pop("PYTORCH_CUDA_ALLOC_CONF")
        if allocator:
            environment["PYTORCH_CUDA_ALLOC_CONF"] = allocator
        self.child("benchmarks.gpu.peer", jobs, environment, allocator=allocator or "default")

    def child(self, module: str, jobs: list[dict[str, Any]], environment: dict[str, str], **about: Any) -> None:
        """Runs the jobs in a process of its own and passes its lines on as they come."""
        for job in jobs:
            self.path(job["model"])
        ours.release()
        started = {"started": time.time()}
        told = [json.dumps(job | started if job["what"] == "fresh" else job) for job in jobs]
        command = [sys.executable, "-m", module, str(self.folder), *told]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"side"'):
                self.emit(json.loads(line) | about)
        if process.wait():
            self.emit({"process": module, "error": f"the process ended with {process.returncode}"})


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
