"""Our side: the product's own code. Pairs from a file, `training.data.prepare`, `training.loop.train`, `Encoder.encode`.

A pass is one epoch. The product tokenises once, before the first step: that time is divided among the timed passes.
"""

import gc
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.workload import (
    LEARNING_RATE,
    LONGEST,
    LORA_RANK,
    TEMPERATURE,
    Shape,
    columns,
    text_of,
    write_pairs,
)
from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.load import load_encoder
from embed_assets.settings import TrainingSettings
from embed_assets.training.curve import StepRecord
from embed_assets.training.data import TrainingData, prepare, read_pairs
from embed_assets.training.loop import TrainingResult, train
from embed_assets.training.recipe import Recipe, derive_recipe


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: the seconds of its passes, a share of the tokenising included, the first and the last left out."""

    pass_seconds: list[float]
    rows: int
    row_lengths: np.ndarray = field(repr=False)
    """Tokens of every text of a pass."""
    adapter_parameters: int
    peak_gib: float
    """Of memory reserved."""
    peak_allocated_gib: float
    most_tokens: int
    """Of a step's distinct texts."""
    first_pass_seconds: float
    tokenising_seconds: float
    result: TrainingResult = field(repr=False)

    @property
    def samples_per_second(self) -> float:
        return self.rows / float(np.median(self.pass_seconds))


def recipe_for(shape: Shape, *, rows: int, batch: int, epochs: int, negatives: int = 0, rate: float = 0.0) -> Recipe:
    """What the product derives for a model outside the catalogue, with the benchmark's dials."""
    settings = TrainingSettings(
        epochs=epochs, batch_size=batch, learning_rate=rate or LEARNING_RATE, lora_rank=LORA_RANK,
        temperature=TEMPERATURE,
    )  # fmt: skip
    return derive_recipe(settings, rows=rows, commit_share=0.0, model_type=shape.model_type, hard_negatives=negatives)


def pairs_file(folder: Path, shape: Shape, rows: int, negatives: int, *, tiny: bool) -> Path:
    """The workload's rows as the product reads them, written once."""
    file = folder / f"pairs-{rows}-{negatives}.jsonl"
    if not file.is_file():
        write_pairs(file, rows, shape.sizes["vocab_size"], negatives=negatives, tiny=tiny)
    return file


def read_rows(encoder: Encoder, folder: Path, shape: Shape, rows: int, negatives: int, *, tiny: bool) -> TrainingData:
    """Rows of the workload through the product's own reading and tokenising."""
    pairs = read_pairs(pairs_file(folder, shape, rows, negatives, tiny=tiny))
    return prepare(encoder, pairs, hard_negatives=negatives)


def train_passes(
    shape: Shape, folder: Path, device: str, *, batch: int, rows: int, passes: int, negatives: int = 0,
    path: str = "auto", tiny: bool = False,
) -> Run:  # fmt: skip
    """Trains `passes` epochs between a first one, which warms up, and a last one, and times each."""
    encoder = load_encoder(folder, device=device, max_tokens=LONGEST)
    read_rows(encoder, folder, shape, rows, negatives, tiny=tiny)  # once untimed: the file is read from memory then
    started = time.perf_counter()
    data = read_rows(encoder, folder, shape, rows, negatives, tiny=tiny)
    tokenising = time.perf_counter() - started
    recipe = recipe_for(shape, rows=rows, batch=batch, epochs=passes + 2, negatives=negatives)
    stamps: list[float] = []
    tokens: list[int] = []

    def observe(record: StepRecord, steps: int) -> None:
        stamps.append(time.perf_counter())
        tokens.append(round(record.tokens_per_second * batch / record.samples_per_second))
        if len(stamps) == steps // (passes + 2) and device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    started = time.perf_counter()
    result = train(encoder, data, recipe, path=path, observe=observe)
    peak = torch.cuda.max_memory_reserved() / 2**30 if device == "cuda" else 0.0
    allocated = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    per_pass = len(stamps) // (passes + 2)
    ends = stamps[per_pass - 1 :: per_pass]
    lengths = [len(data.query_tokens[row]) for row in data.queries]
    lengths += [len(data.passage_tokens[row]) for row in (*data.positives, *data.negatives.flatten())]
    trained = sum(parameter.numel() for parameter in encoder.model.parameters() if parameter.requires_grad)
    between = [later - earlier for earlier, later in itertools.pairwise(ends[:-1])]
    return Run(
        pass_seconds=[seconds + tokenising / passes for seconds in between],
        rows=rows, row_lengths=np.array(lengths), adapter_parameters=trained, peak_gib=peak,
        peak_allocated_gib=allocated, most_tokens=max(tokens),
        first_pass_seconds=ends[0] - started, tokenising_seconds=tokenising, result=result,
    )  # fmt: skip


def encode(shape: Shape, folder: Path, device: str, *, texts: int, repeats: int = 3) -> dict[str, Any]:
    """Texts per second of the passage column, text in, vectors out: the median of `repeats`."""
    encoder = load_encoder(folder, device=device, max_tokens=LONGEST)
    written = [text_of(row) for row in columns(texts, shape.sizes["vocab_size"], seed=3, tiny=device == "cpu")[1]]
    encoder.encode(written[:500])
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        encoder.encode(written)
        seconds.append(time.perf_counter() - started)
    lengths = [len(row) for row in encoder.tokenise(written)]
    return {"seconds": seconds, "lengths": np.array(lengths), "texts_per_second": texts / float(np.median(seconds))}


def release() -> None:
    """Gives back what the last measurement held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
