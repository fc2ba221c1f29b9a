"""One GPU against two: the product's torchrun, the same loss and gradients, and how much faster.

`compare` runs `python -m benchmarks.gpu.ranks` under torchrun with one process and with two (NCCL; gloo on a CPU), and
then the product's whole job on all of them, started as Dagster starts it: through Pipes, by the launcher.
"""

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.correctness import as_if_trained, cosine
from benchmarks.gpu.ours import pairs_file, read_rows, recipe_for, release
from benchmarks.gpu.workload import LEARNING_RATE, LONGEST, SHAPES, Shape, save_checkpoint, shrunk
from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.paths import choose_path
from embed_assets.files import read_json, write_json
from embed_assets.settings import Settings
from embed_assets.training.adapter import adapter_parameters, add_adapter
from embed_assets.training.curve import StepRecord, read_curve
from embed_assets.training.data import make_batch
from embed_assets.training.launch import torchrun
from embed_assets.training.loop import train
from embed_assets.training.memory import plan_memory
from embed_assets.training.plan import build_job
from embed_assets.training.ranks import Ranks, join_ranks
from embed_assets.training.step import loss_and_gradients

PASSES = 4
"""The first one warms up."""


def compare(folder: Path, shape: Shape, device: str, *, model: str, batches: list[int], rows: int) -> dict[str, Any]:
    """Samples/s by batch of one process and of two; by how much their loss and their gradients differ."""
    command = ["--standalone", "--nproc-per-node"]
    told = json.dumps({"model": model, "batches": batches, "rows": rows})
    for count in (1, 2):
        out = folder / f"ranks-{count}"
        arguments = [*command, str(count), "-m", "benchmarks.gpu.ranks", str(folder), told, str(out)]
        subprocess.run([sys.executable, "-m", "torch.distributed.run", *arguments], check=True)
    alone, together = (torch.load(folder / f"ranks-{count}", weights_only=True) for count in (1, 2))
    names = list(alone["gradients"])
    each = [float(cosine(together["gradients"][name], alone["gradients"][name])) for name in names]
    flat, expected = (torch.cat([side["gradients"][name].flatten() for name in names]) for side in (together, alone))
    return {
        "loss": [alone["loss"], together["loss"]],
        "gradient_cosine": float(cosine(flat, expected)),
        "lowest_gradient_cosine": min(each),
        "gradient_norm": [float(expected.norm()), float(flat.norm())],
        "samples_per_second": {
            batch: [alone["samples_per_second"][batch], together["samples_per_second"][batch]] for batch in batches
        },
        "mean_loss": {batch: [alone["mean_loss"][batch], together["mean_loss"][batch]] for batch in batches},
        "whole_job": whole_job(folder, shape, device, model=model, batch=batches[0], rows=rows),
    }


def whole_job(folder: Path, shape: Shape, device: str, *, model: str, batch: int, rows: int) -> dict[str, Any]:
    """A job of one pass, as the asset runs it; every process but the first must be silent."""
    dials = {"epochs": 1, "batch_size": batch, "learning_rate": LEARNING_RATE, "device": device}
    settings = Settings.model_validate(
        {
            "model": {"name": str(folder / model), "max_tokens": LONGEST},
            "training": dials,
            "pairs": {"hard_negatives": 0},
        }
    )
    pairs = pairs_file(folder / model, shape, rows, 0, tiny=device == "cpu")
    job = build_job(
        settings,
        pairs=pairs,
        pairs_digest="benchmark",
        cutoff=0,
        candidates=folder / "candidates",
        runs=folder / "runs",
    )
    path = folder / "job.json"
    write_json(path, job.to_json())
    command = [sys.executable, "-m", "embed_assets.training", str(path)]
    if device == "cpu":  # where the launcher starts one process
        command = torchrun(2, "embed_assets.training", [str(path)])
    started = time.perf_counter()
    child = subprocess.run(command, env=os.environ | _pipes(folder), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if child.returncode:
        raise RuntimeError(f"the job ended with {child.returncode}: {child.stderr[-2000:]}")
    about = read_json(Path(job.output) / "training.json")
    messages = [json.loads(line) for line in (folder / "pipes-messages").read_text(encoding="utf-8").splitlines()]
    curve = read_curve(Path(job.run_directory) / "curve.jsonl")
    return {
        "seconds": seconds,
        "ranks": about["ranks"],
        "path": about["path"],
        "losses": [record.loss for record in curve],
        "pipes_opened": sum(message["method"] == "opened" for message in messages),
        "pipes_lines": [message["params"]["message"][:200] for message in messages if message["method"] == "log"],
    }


def _pipes(folder: Path) -> dict[str, str]:
    """The environment in which Dagster's client for subprocesses starts one: context and messages are files."""
    from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR, encode_param

    unknown = ("code_version_by_asset_key", "provenance_by_asset_key", "partition_key", "partition_key_range")
    context = dict.fromkeys((*unknown, "partition_time_window", "job_name"))
    about = {"asset_keys": ["finetuned_adapter"], "run_id": "benchmark", "retry_number": 0, "extras": {}}
    (folder / "pipes-context").write_text(json.dumps(context | about), encoding="utf-8")
    (folder / "pipes-messages").write_text("", encoding="utf-8")
    return {
        DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"path": str(folder / "pipes-context")}),
        DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({"path": str(folder / "pipes-messages")}),
    }


def main(folder: Path, job: dict[str, Any], out: Path) -> None:
    """One process among its ranks; the first writes what all found."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    ranks = join_ranks(device)
    shape = SHAPES[job["model"]] if device == "cuda" else shrunk(SHAPES[job["model"]])
    path = save_checkpoint(shape, folder / job["model"], device)
    found = gradients(shape, path, device, ranks, rows=job["batches"][0])
    found |= {"samples_per_second": {}, "mean_loss": {}}
    for batch in job["batches"]:
        release()
        rate, loss = speed(shape, path, device, ranks, batch=batch, rows=job["rows"])
        found["samples_per_second"][batch], found["mean_loss"][batch] = rate, loss
    if ranks.leads:
        torch.save(found, out)
    if ranks.count > 1:
        torch.distributed.destroy_process_group()


def gradients(shape: Shape, path: Path, device: str, ranks: Ranks, *, rows: int) -> dict[str, Any]:
    """The loss of one batch of all rows, and the adapter's gradients, summed over ranks."""
    encoder = load_encoder(path, device=device, max_tokens=LONGEST)
    data = read_rows(encoder, path, shape, rows, 0, tiny=device == "cpu")
    add_adapter(encoder, recipe_for(shape, rows=rows, batch=rows, epochs=1))
    encoder.model.eval()
    parameters = adapter_parameters(encoder.model)
    as_if_trained(parameters)
    chosen = choose_path(encoder)
    plan = plan_memory(encoder, step_tokens=int(data.row_tokens().sum()) // ranks.count, path=chosen)
    batch = make_batch(data, np.arange(rows))
    loss = loss_and_gradients(encoder, batch, temperature=0.05, plan=plan, path=chosen, ranks=ranks)
    ranks.sum_gradients(parameters.values())
    return {
        "loss": float(loss),
        "gradients": {name: p.grad.float().cpu() for name, p in parameters.items() if p.grad is not None},
    }


def speed(shape: Shape, path: Path, device: str, ranks: Ranks, *, batch: int, rows: int) -> tuple[float, float]:
    """Samples/s, the median of the passes after the first, and the first pass's mean loss."""
    encoder = load_encoder(path, device=device, max_tokens=LONGEST)
    data = read_rows(encoder, path, shape, rows, 0, tiny=device == "cpu")
    stamps: list[float] = []
    result = train(
        encoder, data, recipe_for(shape, rows=rows, batch=batch, epochs=PASSES), ranks=ranks,
        observe=partial(_stamp, stamps),
    )  # fmt: skip
    steps = len(stamps) // PASSES
    seconds = np.diff(stamps[steps - 1 :: steps])
    return rows / float(np.median(seconds)), float(np.mean([record.loss for record in result.curve[:steps]]))


def _stamp(stamps: list[float], record: StepRecord, steps: int) -> None:
    stamps.append(time.perf_counter())


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]))
