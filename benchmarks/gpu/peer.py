"""The other side: sentence-transformers' own trainer and `encode`, text in, its defaults, with SDPA or padding-free.

A process of its own, `python -m benchmarks.gpu.peer FOLDER JOB...`, because the stand-in for flash-attn must be on
its path from the start. A job is model:attention:batch:negatives:steps, or encode:model:attention:batch:texts.
Gradient checkpointing is switched on only where the batch does not fit without it. Prints one JSON line a job.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.workload import (
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    SHAPES,
    TEMPERATURE,
    Shape,
    columns,
    save_checkpoint,
    shrunk,
    text_of,
    training_flops,
)

WARM_UP = 3
ATTENTION = {"sdpa": "sdpa", "padding-free": "flash_attention_2"}


def load(shape: Shape, path: Path, attention: str, device: str) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.transformer import Transformer
    from sentence_transformers.sentence_transformer.modules.pooling import Pooling
    from transformers import PreTrainedTokenizerFast

    transformer = Transformer(str(path), model_kwargs={"attn_implementation": ATTENTION[attention]})
    transformer.processor = PreTrainedTokenizerFast.from_pretrained(path)  # AutoTokenizer would force Qwen2's own
    pooling = "lasttoken" if shape.pooling == "last" else shape.pooling
    pooler = Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)
    return SentenceTransformer(modules=[transformer, pooler], device=device)


def train(
    shape: Shape, path: Path, device: str, *, attention: str, batch: int, negatives: int, steps: int, checkpointed: bool
) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from peft import LoraConfig
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from transformers import TrainerCallback

    model = load(shape, path, attention, device)
    targets = list(shape.targets)
    model.add_adapter(LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=targets, lora_dropout=0.0))
    if checkpointed:  # the trainer's own argument fails: its call passes an option that the model does not take
        model[0].model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ids = columns(batch * (steps + WARM_UP), shape.sizes["vocab_size"], negatives=negatives, tiny=device == "cpu")
    names = ["anchor", "positive", "negative"][: len(ids)]
    table = {name: [text_of(row) for row in column] for name, column in zip(names, ids, strict=True)}
    stamps: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            stamps.append(time.perf_counter())
            if len(stamps) == WARM_UP and device == "cuda":
                torch.cuda.reset_peak_memory_stats()

    lengths: list[np.ndarray] = []
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(path / "peer"), per_device_train_batch_size=batch, max_steps=steps + WARM_UP, bf16=True,
        learning_rate=LEARNING_RATE, report_to="none", logging_strategy="no", save_strategy="no", disable_tqdm=True,
        use_cpu=device == "cpu",
    )  # fmt: skip
    model.model_card_data.set_widget_examples = lambda *unused, **options: None
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset(InMemoryTable.from_pydict(table), fingerprint=f"rows{batch}x{steps}x{negatives}"),
        loss=losses.MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE),
        callbacks=[Clock()],
    )
    trainer.train()
    timed = stamps[-1] - stamps[WARM_UP - 1]
    real = sum(len(row) for column in ids for row in column) / (steps + WARM_UP)
    lengths = [np.array([len(row) for column in ids for row in column])]
    return {
        "samples_per_second": batch * steps / timed,
        "step_seconds": float(np.median(np.diff(stamps[WARM_UP - 1 :]))),
        "tokens_per_step": real,
        "model_tflops": training_flops(shape, lengths[0]) / (steps + WARM_UP) / (timed / steps) / 1e12,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0,
        "padding_free": bool(getattr(model[0], "can_flatten_inputs", False)),
        "checkpointed": checkpointed,
    }


def train_fitting(shape: Shape, path: Path, device: str, **options: Any) -> dict[str, Any]:
    """Without checkpointing, or with it where memory runs out."""
    import gc

    import torch

    try:
        return train(shape, path, device, checkpointed=False, **options)
    except torch.OutOfMemoryError:
        pass
    gc.collect()
    torch.cuda.empty_cache()
    return train(shape, path, device, checkpointed=True, **options)


def encode(shape: Shape, path: Path, device: str, *, attention: str, batch: int, texts: int) -> dict[str, Any]:
    model = load(shape, path, attention, device).eval()
    written = [text_of(row) for row in columns(texts, shape.sizes["vocab_size"], seed=3, tiny=device == "cpu")[1]]
    model.encode(written[: 4 * batch], batch_size=batch, show_progress_bar=False)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        model.encode(written, batch_size=batch, show_progress_bar=False)
        seconds.append(time.perf_counter() - started)
    return {"texts_per_second": texts / float(np.median(seconds))}


def run_job(job: str, folder: Path, device: str) -> dict[str, Any]:
    encoding, parts = job.startswith("encode:"), job.removeprefix("encode:").split(":")
    name, attention, *numbers = parts
    shape = SHAPES[name] if device == "cuda" else shrunk(SHAPES[name])
    path = save_checkpoint(shape, folder / name, device)
    if encoding:
        batch, texts = map(int, numbers)
        return encode(shape, path, device, attention=attention, batch=batch, texts=texts)
    batch, negatives, steps = map(int, numbers)
    fit = train_fitting if batch < 128 or name != "qodo" else lambda *a, **k: train(*a, checkpointed=True, **k)
    return fit(shape, path, device, attention=attention, batch=batch, negatives=negatives, steps=steps)


def main(arguments: list[str]) -> None:
    """Runs the jobs one after the other; a failed one is reported and does not lose the others."""
    folder = Path(arguments[0])
    import gc

    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for job in arguments[1:]:
        result: dict[str, Any] = {"side": "sentence-transformers", "job": job}
        started = time.perf_counter()
        try:
            result |= run_job(job, folder, device)
        except Exception as error:  # noqa: BLE001 - reported in the job's own line
            result["error"] = f"{type(error).__name__}: {str(error)[:300]}"
        result["seconds"] = round(time.perf_counter() - started, 1)
        print(json.dumps(result), flush=True)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main(sys.argv[1:])
