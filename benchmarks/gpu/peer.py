"""The other side: sentence-transformers' own trainer and `encode`, text in, its defaults, with SDPA or padding-free.

A process of its own, `python -m benchmarks.gpu.peer FOLDER JOB...`, because the stand-in for flash-attn must be on
its path from the start. A job is a JSON object: what (train, encode or fresh), model, attention and the function's arguments.
Gradient checkpointing is switched on only where the batch does not fit without it. Prints one JSON line a job.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import fresh
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
    write_pairs,
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


class Trainer:
    """Its model with an adapter, and its trainer over the workload's rows, with every step's end stamped."""

    def __init__(
        self, shape: Shape, path: Path, device: str, *, attention: str, batch: int, rows: int, negatives: int = 0,
        checkpointed: bool = False,
    ) -> None:  # fmt: skip
        from datasets import Dataset
        from datasets.table import InMemoryTable
        from peft import LoraConfig

        self.path, self.device, self.batch = path, device, batch
        self.model = load(shape, path, attention, device)
        targets = list(shape.targets)
        self.model.add_adapter(LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=targets, lora_dropout=0.0))
        if checkpointed:  # the trainer's own argument fails: its call passes an option that the model does not take
            options = {"use_reentrant": False}
            self.model[0].model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        self.model.model_card_data.set_widget_examples = lambda *unused, **options: None
        file, words = path / f"peer-{rows}-{negatives}.jsonl", shape.sizes["vocab_size"]
        table = write_pairs(file, rows, words, negatives=negatives, tiny=device == "cpu")
        columns = dict(zip(("anchor", "positive", "negative"), table, strict=False))
        self.dataset = Dataset(InMemoryTable.from_pydict(columns), fingerprint=f"rows{rows}x{negatives}")
        self.stamps: list[float] = []
        """The training's begin, then every step's end."""
        self.on_step: Callable[[], None] = lambda: None

    def run(self, **length: Any) -> None:
        """Trains for `max_steps` or `num_train_epochs`."""
        import torch
        from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments, losses
        from transformers import TrainerCallback

        trainer = self
        self.stamps.clear()

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, *arguments: Any, **options: Any) -> None:
                self.on_step_end()

            def on_step_end(self, *arguments: Any, **options: Any) -> None:
                if trainer.device == "cuda":
                    torch.cuda.synchronize()
                trainer.stamps.append(time.perf_counter())
                trainer.on_step()

        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(self.path / "peer"), per_device_train_batch_size=self.batch, bf16=True,
            learning_rate=LEARNING_RATE, report_to="none", logging_strategy="no", save_strategy="no",
            disable_tqdm=True, use_cpu=self.device == "cpu", **length,
        )  # fmt: skip
        loss = losses.MultipleNegativesRankingLoss(self.model, scale=1 / TEMPERATURE)
        SentenceTransformerTrainer(
            model=self.model, args=arguments, train_dataset=self.dataset, loss=loss, callbacks=[Clock()]
        ).train()


def train(
    shape: Shape, path: Path, device: str, *, batch: int, rows: int, passes: int, checkpointed: bool, **options: Any
) -> dict[str, Any]:  # fmt: skip
    """Times `passes` epochs over the rows, after a few steps to warm up."""
    import torch

    trainer = Trainer(shape, path, device, batch=batch, rows=rows, checkpointed=checkpointed, **options)
    trainer.run(max_steps=WARM_UP)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer.run(num_train_epochs=passes)
    seconds = np.diff(trainer.stamps[:: rows // batch]).tolist()
    return {
        "samples_per_second": rows / float(np.median(seconds)),
        "pass_seconds": [round(value, 3) for value in seconds],
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0,
        "allocator_retries": torch.cuda.memory_stats().get("num_alloc_retries", 0) if device == "cuda" else 0,
        "padding_free": bool(getattr(trainer.model[0], "can_flatten_inputs", False)),
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


def encode(
    shape: Shape, path: Path, device: str, *, attention: str, batch: int, texts: int, repeats: int = 3
) -> dict[str, Any]:
    model = load(shape, path, attention, device).eval()
    written = [text_of(row) for row in columns(texts, shape.sizes["vocab_size"], seed=3, tiny=device == "cpu")[1]]
    model.encode(written[: 4 * batch], batch_size=batch, show_progress_bar=False)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        model.encode(written, batch_size=batch, show_progress_bar=False)
        seconds.append(time.perf_counter() - started)
    return {"texts_per_second": texts / float(np.median(seconds)), "seconds": seconds}


def run_job(job: dict[str, Any], folder: Path, device: str) -> dict[str, Any]:
    shape = SHAPES[job["model"]] if device == "cuda" else shrunk(SHAPES[job["model"]])
    path = save_checkpoint(shape, folder / job["model"], device)
    options = {key: value for key, value in job.items() if key not in ("what", "model")}
    if job["what"] == "encode":
        return encode(shape, path, device, **options)
    if job["what"] == "fresh":
        return fresh.of_the_peer(shape, path, device, **options)
    if options["batch"] >= 128 and job["model"] == "qodo":  # known to run out of memory without
        return train(shape, path, device, checkpointed=True, **options)
    return train_fitting(shape, path, device, **options)


def main(arguments: list[str]) -> None:
    """Runs the jobs one after the other; a failed one is reported and does not lose the others."""
    folder = Path(arguments[0])
    import gc

    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for job in arguments[1:]:
        asked = json.loads(job)
        result: dict[str, Any] = {"side": "sentence-transformers", **asked}
        started = time.perf_counter()
        try:
            result |= run_job(asked, folder, device)
        except Exception as error:  # noqa: BLE001 - reported in the job's own line
            result["error"] = f"{type(error).__name__}: {str(error)[:300]}"
        result["seconds"] = round(time.perf_counter() - started, 1)
        print(json.dumps(result), flush=True)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main(sys.argv[1:])
