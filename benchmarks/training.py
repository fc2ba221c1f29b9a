"""Training MiniLM on a team's rows, ours against sentence-transformers' own trainer, both sides in one run.

On a GPU, the shapes of the large models: `python -m benchmarks.gpu`.

    python -m benchmarks.training [--device cpu] [--steps 16] [--repeats 3] [--threads N] [--recall] [--rows 256]
        [--epochs N] [--work FOLDER] [--output REPORT.md]

The rows are those that the product itself makes of networkx and polars as installed: docstring -> function. Both sides
train LoRA of the same rank on the same layers with the same batch, temperature, learning rate and schedule; the peer is
SentenceTransformerTrainer with MultipleNegativesRankingLoss and its defaults otherwise. Speed is samples per second
over the steps after two of warm-up, tokenisation of each step included. `--recall` also trains both sides on the same
`--rows` for `--epochs` (the recipe's when not given), and ours by the product's own default job, on all rows, from the pairs file to
the written candidate; each model then ranks the held-out queries. With `--work` whatever is finished is kept there, and
a run that was cut short goes on. The peer needs `datasets` and `accelerate` installed.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.workload import MODEL, OURS, PEER, SIDES, run_side, surroundings, write_report

PACKAGES = ("networkx", "polars")
WARM_UP_STEPS = 2
FLOAT32 = "embed_assets, float32"
DEFAULT_JOB = "embed_assets, default job"
BASE = "base model"
WHOLE = (BASE, *SIDES, DEFAULT_JOB)
"""What ranks the held-out queries."""
RECALL_ROWS = 256
"""Training rows of the two sides that are compared in recall: the peer needs two minutes for three epochs of them on two cores."""


def prepare_rows(folder: Path) -> None:
    """The product's own pairs and benchmark for the packages, under `folder`."""
    from embed_assets.pairs.build import build_pairs
    from embed_assets.snippets.collect import collect_snippets
    from embed_assets.store import Store

    settings = settings_of(folder)
    collect_snippets(settings, Store(folder))
    build_pairs(settings, Store(folder))


def settings_of(folder: Path) -> Any:
    from embed_assets.settings_loading import load_settings

    repositories = [{"source": f"package:{package}"} for package in PACKAGES]
    return load_settings(overrides={"data_dir": str(folder), "repositories": repositories, "pairs.hard_negatives": 0})


def training_rows(folder: Path, count: int) -> pl.DataFrame:
    """So many training rows, drawn at random; all of them when there are fewer."""
    from embed_assets.store import Store
    from embed_assets.training.data import read_pairs

    rows = read_pairs(Store(folder).pairs).filter(pl.col("split") == "train")
    return rows.sample(min(count, len(rows)), seed=0, shuffle=True)


def recipe_of(rows: int) -> Any:
    """The product's default recipe for documentation rows."""
    from embed_assets.models import CATALOGUE
    from embed_assets.settings import TrainingSettings
    from embed_assets.training.recipe import derive_recipe

    spec = CATALOGUE[MODEL]
    return derive_recipe(TrainingSettings(), rows=rows, commit_share=0.0, model_type=spec.model_type, spec=spec)


def train_ours(
    rows: pl.DataFrame, device: str, epochs: int, judge: Path | None, *, precision: str = "auto"
) -> dict[str, Any]:
    """The product's loop on given rows, adapter unscaled."""
    from dataclasses import replace

    from embed_assets.encoder.load import load_encoder
    from embed_assets.encoder.resolve import resolve
    from embed_assets.training.data import prepare
    from embed_assets.training.loop import train
    from embed_assets.training.memory import plan_memory

    encoder = load_encoder(resolve(MODEL).path, device=device)
    started = time.perf_counter()
    data = prepare(encoder, rows, hard_negatives=0)
    tokenised = time.perf_counter() - started
    recipe = replace(recipe_of(len(rows)), epochs=epochs)
    plan = plan_memory(encoder, step_tokens=int(data.tokens_per_row * recipe.batch_size))
    stamps: list[float] = []
    result = train(
        encoder, data, recipe, plan=plan, precision=precision, observe=lambda *step: stamps.append(time.perf_counter())
    )
    timed = stamps[-1] - stamps[WARM_UP_STEPS - 1]
    steps = len(stamps)
    per_step = len(rows) * epochs / steps
    return {
        "samples_per_second": per_step
        * (steps - WARM_UP_STEPS)
        / (timed + tokenised * (steps - WARM_UP_STEPS) / steps),
        "tokens_per_row": data.tokens_per_row,
        "path": result.path,
        "precision": result.precision,
        "seconds": stamps[-1] - started,
        "final_loss": float(np.mean([record.loss for record in result.curve[-10:]])),
        **({} if judge is None else recall(judge, lambda texts, kind: encoder.encode(texts, kind=kind))),
    }


def train_peer(rows: pl.DataFrame, device: str, epochs: int, judge: Path | None) -> dict[str, Any]:
    """sentence-transformers' trainer on the same rows with the same recipe."""
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from peft import LoraConfig
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from transformers import TrainerCallback

    from embed_assets.encoder.resolve import resolve

    recipe = recipe_of(len(rows))
    model = SentenceTransformer(str(resolve(MODEL).path), device=device)
    targets = r".*(query|key|value|(output|intermediate)\.dense)"
    model.add_adapter(
        LoraConfig(r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, target_modules=targets, lora_dropout=0.0)
    )
    model.model_card_data.set_widget_examples = lambda *unused, **options: None  # minutes of work before the first step
    stamps: list[float] = []
    seen: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            stamps.append(time.perf_counter())

        def on_log(self, *arguments: Any, logs: dict[str, float] | None = None, **options: Any) -> None:
            seen.extend([logs["loss"]] if logs and "loss" in logs else [])

    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, per_device_train_batch_size=recipe.batch_size, num_train_epochs=epochs,
            learning_rate=recipe.learning_rate, warmup_steps=recipe.warmup_ratio, weight_decay=recipe.weight_decay,
            report_to="none", logging_steps=10, save_strategy="no", disable_tqdm=True, use_cpu=device == "cpu",
        )  # fmt: skip
        table = {"anchor": rows["query"].to_list(), "positive": rows["positive"].to_list()}
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset(InMemoryTable.from_pydict(table), fingerprint=f"{len(rows)}"),
            loss=losses.MultipleNegativesRankingLoss(model, scale=1 / recipe.temperature),
            callbacks=[Clock()],
        )
        started = time.perf_counter()
        trainer.train()
    timed = stamps[-1] - stamps[WARM_UP_STEPS - 1]
    steps = len(stamps)
    return {
        "samples_per_second": len(rows) * epochs / steps * (steps - WARM_UP_STEPS) / timed,
        "seconds": stamps[-1] - started,
        "final_loss": seen[-1] if seen else float("nan"),
        "adapters": sum("lora_A" in name for name, _ in model.named_parameters()),
        **({} if judge is None else recall(judge, _encode_of(model, device))),
    }


def _encode_of(model: Any, device: str) -> Any:
    """Both sides are judged by one encoder: ours, around the peer's trained transformer."""
    from dataclasses import replace

    from embed_assets.encoder.load import load_encoder
    from embed_assets.encoder.resolve import resolve

    encoder = replace(load_encoder(resolve(MODEL).path, device=device), model=model[0].model.eval())
    return lambda texts, kind: encoder.encode(texts, kind=kind)


def run_default_job(folder: Path) -> dict[str, Any]:
    """The product's own job with its defaults: from the pairs file to a candidate on disk, validation and merge included."""
    from embed_assets.encoder.load import load_encoder
    from embed_assets.store import Store
    from embed_assets.training.standalone import train_to_directory

    store = Store(folder)
    output = folder / "trained"
    started = time.perf_counter()
    summary = train_to_directory(settings_of(folder), store.pairs, output)
    seconds = time.perf_counter() - started
    encoder = load_encoder(output / "model", device=summary["device"])
    judged = recall(store.current_benchmark, lambda texts, kind: encoder.encode(texts, kind=kind))
    epochs = summary["recipe"]["epochs"]
    rows = summary["rows"]
    return {"samples_per_second": rows * epochs / seconds, "seconds": seconds, "rows": rows, "epochs": epochs, **judged}


def run_base(device: str, judge: Path) -> dict[str, Any]:
    """The base model, untrained."""
    from embed_assets.encoder.load import load_encoder
    from embed_assets.encoder.resolve import resolve

    encoder = load_encoder(resolve(MODEL).path, device=device)
    return recall(judge, lambda texts, kind: encoder.encode(texts, kind=kind))


def recall(benchmark: Path, encode: Any) -> dict[str, Any]:
    """Recall@10 and reciprocal rank@10 of every held-out query over the whole corpus, and its cluster."""
    from embed_assets.evaluation.benchmark import read_benchmark
    from embed_assets.evaluation.metrics import recall_at, reciprocal_rank
    from embed_assets.evaluation.tasks import tasks_of
    from embed_assets.retrieval.exact import ranks_in

    read = read_benchmark(benchmark)
    task = tasks_of(read)[0]
    scores = encode(task.texts, "query") @ encode(read.corpus["text"].to_list(), "passage").T
    ranks = ranks_in(scores, task.relevant)
    return {
        "recall": recall_at(ranks).tolist(),
        "reciprocal_rank": reciprocal_rank(ranks).tolist(),
        "groups": task.queries["group_id"].to_list(),
    }


def measure(
    folder: Path, device: str, steps: int, repeats: int, threads: int, *, epochs: int, rows: int, recall_too: bool
) -> dict[str, Any]:
    """Every run: speed on the same rows in turns, then once to the end with recall."""
    sides = (*SIDES, FLOAT32) if device == "cpu" else SIDES
    if not (folder / "prepared").exists():
        prepare_rows(folder)
        (folder / "prepared").touch()
    common = ["--work", str(folder), "--device", device, "--threads", str(threads)]

    def kept(name: str, arguments: list[str]) -> dict[str, Any]:
        file = folder / f"{name}.json".replace(", ", "-").replace(" ", "-")
        if not file.exists():
            found = run_side("benchmarks.training", [*arguments, *common], threads=threads)
            file.write_text(json.dumps(found), encoding="utf-8")
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        print(name, {key: value for key, value in document.items() if not isinstance(value, list)}, flush=True)
        return document

    speed: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    short = recipe_of(rows).batch_size * steps
    for turn in range(repeats):
        for side in sides:
            speed[side].append(kept(f"speed-{steps}-{turn + 1}-{side}", ["--side", side, "--rows", str(short)]))
    length = ["--judge", "--rows", str(rows), "--epochs", str(epochs)]
    asked = WHOLE if recall_too else ()
    whole = {side: kept(f"whole-{rows}-{epochs}-{side}", ["--side", side, *length]) for side in asked}
    return {"speed": speed, "whole": whole, "epochs": epochs, "rows": rows}


def report(found: dict[str, Any], device: str, steps: int, repeats: int, threads: int) -> str:
    """Markdown: medians over the repeats, then the whole runs."""
    ours = found["speed"][OURS][0]
    recipe = recipe_of(found["rows"])
    tokens = ours["tokens_per_row"]
    lines = [
        "# Training: embed_assets against sentence-transformers' trainer",
        "",
        surroundings(device, threads),
        f"{MODEL}, LoRA of rank {recipe.lora_rank} on all linear layers, batch {recipe.batch_size}, {steps} steps on the same rows of "
        f"{' and '.join(PACKAGES)}, {tokens:.0f} real tokens a row; medians of {repeats} runs of each side, taking turns. "
        f"Ours: path {ours['path']}, large products in {ours['precision']}. `python -m benchmarks.training`.",
        "",
        "| side | samples/s | real tokens/s | slowest and fastest run, samples/s |",
        "|---|---|---|---|",
    ]
    for side, runs in found["speed"].items():
        rates = sorted(run["samples_per_second"] for run in runs)
        rate = statistics.median(rates)
        lines.append(f"| {side} | {rate:.1f} | {rate * tokens:,.0f} | {rates[0]:.1f}, {rates[-1]:.1f} |")
    for side in found["speed"]:
        pairs = zip(found["speed"][side], found["speed"][PEER], strict=True)
        faster = statistics.median(a["samples_per_second"] / b["samples_per_second"] for a, b in pairs)
        lines += ["", f"{side}: {faster:.2f} times the peer's samples per second."] if side != PEER else []
    return "\n".join(lines + (_recall_lines(found) if found["whole"] else [])) + "\n"


def _recall_lines(found: dict[str, Any]) -> list[str]:
    whole = found["whole"]
    job = whole[DEFAULT_JOB]
    lines = [
        "",
        f"Both sides trained to the end on the same {found['rows']:,} rows for {found['epochs']} epochs; the default job trained on all "
        f"{job['rows']:,} rows for {job['epochs']} epochs, from the pairs file to the candidate on disk, validation and merge included, in "
        f"{job['seconds']:.0f} s. {len(whole[OURS]['recall'])} held-out queries:",
        "",
        "| side | samples/s | seconds of training | recall@10 | MRR@10 |",
        "|---|---|---|---|---|",
    ]
    for side, run in whole.items():
        means = " | ".join(f"{100 * statistics.fmean(run[metric]):.1f}" for metric in ("recall", "reciprocal_rank"))
        rate = f"{run['samples_per_second']:.1f} | {run['seconds']:.0f}" if "seconds" in run else " | "
        lines.append(f"| {side} | {rate} | {means} |")
    lines += ["", "Differences, paired by query, with the 95% interval of a bootstrap over clusters of queries:", ""]
    for left, right in ((OURS, PEER), (OURS, BASE), (DEFAULT_JOB, PEER)):
        both = (
            f"{name} {_difference(whole[left], whole[right], metric)}"
            for name, metric in (("recall@10", "recall"), ("MRR@10", "reciprocal_rank"))
        )
        lines.append(f"- {left} less {right}: {', '.join(both)}")
    return lines


def _difference(left: dict[str, Any], right: dict[str, Any], metric: str) -> str:
    from embed_assets.evaluation.significance import bootstrap_interval

    each = np.array(left[metric]) - np.array(right[metric])
    low, high = bootstrap_interval(each, left["groups"])
    return f"{100 * each.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, help="Batches that speed is measured on, 16 when not given.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="Of the two sides compared in recall; the recipe's when not given.")
    parser.add_argument("--rows", type=int, default=RECALL_ROWS, help="That those two train on.")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--recall", action="store_true", help="Also train to the end, and rank the held-out queries.")
    parser.add_argument("--output", type=Path, help="Where the report goes; printed in any case.")
    parser.add_argument("--side", choices=(*WHOLE, FLOAT32), help=argparse.SUPPRESS)
    parser.add_argument(
        "--work", type=Path, help="Where what is finished is kept, so that a run that was cut short goes on."
    )
    parser.add_argument("--judge", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(_one_side(given)))
        return
    counts = (given.steps or 16, given.repeats, given.threads)
    epochs = given.epochs or recipe_of(given.rows).epochs
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        found = measure(work, given.device, *counts, epochs=epochs, rows=given.rows, recall_too=given.recall)
        write_report(report(found, given.device, *counts), given.output)


def _one_side(given: argparse.Namespace) -> dict[str, Any]:
    import torch

    from embed_assets.store import Store

    torch.set_num_threads(given.threads)
    judge = Store(given.work).current_benchmark
    if given.side == DEFAULT_JOB:
        return run_default_job(given.work)
    if given.side == BASE:
        return run_base(given.device, judge)
    rows, epochs = training_rows(given.work, given.rows), given.epochs or 1
    judged = judge if given.judge else None
    if given.side == PEER:
        return train_peer(rows, given.device, epochs, judged)
    return train_ours(rows, given.device, epochs, judged, precision="float32" if given.side == FLOAT32 else "auto")


if __name__ == "__main__":
    main()
