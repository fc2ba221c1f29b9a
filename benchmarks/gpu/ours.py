"""Our side: text in, tokenised once, the encoder's paths, InfoNCE, clipping, AdamW; and encoding, text in, vectors out."""

import itertools
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.gpu.workload import LEARNING_RATE, LORA_ALPHA, LORA_RANK, TEMPERATURE, Shape, columns, text_of
from embed_assets.encoder.fused import fused_embed
from embed_assets.encoder.packed import packed_embed

CHUNK = 1000
"""Texts that are tokenised ahead of the device when encoding."""
EMBED: dict[str, Any] = {"fused": fused_embed, "packed": packed_embed}


@dataclass
class BenchEncoder:
    """The part of an encoder that the paths read."""

    model: Any
    pooling: Any
    device: torch.device


@dataclass
class Run:
    """What one timed run gave."""

    samples_per_second: float
    tokens_per_second: float
    step_seconds: list[float]
    lengths: list[np.ndarray] = field(repr=False)
    losses: list[float]
    peak_gib: float
    warm_up_seconds: float


def load(
    shape: Shape, path: Path, device: str, *, dtype: torch.dtype = torch.bfloat16, lora: bool = True
) -> BenchEncoder:
    """The checkpoint, with an adapter injected in place, its masters in float32."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModel

    extra = {} if shape.causal else {"add_pooling_layer": False}
    model = AutoModel.from_pretrained(path, dtype=dtype, attn_implementation="sdpa", **extra).to(device).eval()
    if lora:
        settings = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=list(shape.targets), lora_dropout=0.0)
        inject_adapter_in_model(settings, model)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
    return BenchEncoder(model, shape.pooling, torch.device(device))


def trained(encoder: BenchEncoder) -> list[torch.nn.Parameter]:
    return [parameter for parameter in encoder.model.parameters() if parameter.requires_grad]


def contrastive_loss(embeddings: torch.Tensor, rows: int) -> torch.Tensor:
    """InfoNCE: the first `rows` vectors are queries, then as many positives, then any negatives."""
    scores = embeddings[:rows] @ embeddings[rows:].T / TEMPERATURE
    return functional.cross_entropy(scores, torch.arange(rows, device=scores.device))


def _tokenizer(path: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(path)._tokenizer


def train(
    shape: Shape, path: Path, device: str, *, batch: int, steps: int, warm_up: int, path_name: str, negatives: int = 0,
    tiny: bool = False, **options: Any,
) -> Run:  # fmt: skip
    """Times `steps` steps after `warm_up` ones; the timed rows are tokenised within the time."""
    encoder = load(shape, path, device)
    parameters = trained(encoder)
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=device == "cuda")
    ids = columns(batch * (steps + warm_up), shape.sizes["vocab_size"], negatives=negatives, tiny=tiny)
    texts = [[text_of(row) for row in column] for column in ids]
    tokenizer = _tokenizer(path)

    def tokens_of(step: int) -> list[list[int]]:
        part = slice(step * batch, (step + 1) * batch)
        return [encoding.ids for column in texts for encoding in tokenizer.encode_batch_fast(column[part])]

    losses: list[torch.Tensor] = []
    stamps: list[Any] = []
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as ahead:  # tokenises the next batches while the device works on this one
        for step in range(warm_up + steps):
            if step in (0, warm_up):
                _synchronise(device)
                stamps, warm_seconds = [time.perf_counter()], time.perf_counter() - started
                _reset_peak(device)
                last = warm_up if step == 0 else warm_up + steps
                waiting = deque(ahead.submit(tokens_of, later) for later in range(step, last))
            losses.append(
                train_step(encoder, waiting.popleft().result(), batch, optimizer, parameters, path_name, **options)
            )
            if device == "cuda" and step >= warm_up:
                event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
                event.record()
                stamps.append(event)
    _synchronise(device)
    seconds = time.perf_counter() - stamps[0]
    lengths = [
        np.array([len(row) for column in ids for row in column[step * batch : (step + 1) * batch]])
        for step in range(warm_up, warm_up + steps)
    ]
    events: list[Any] = stamps[1:]
    return Run(
        samples_per_second=batch * steps / seconds,
        tokens_per_second=float(sum(part.sum() for part in lengths)) / seconds,
        step_seconds=[a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(events)],
        lengths=lengths,
        losses=[float(loss) for loss in losses],
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0,
        warm_up_seconds=warm_seconds,
    )


def train_step(
    encoder: BenchEncoder, rows: Sequence[Sequence[int]], batch: int, optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter], path_name: str, **options: Any,
) -> torch.Tensor:  # fmt: skip
    loss = contrastive_loss(EMBED[path_name](encoder, rows, **options), batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def encode(shape: Shape, path: Path, device: str, *, texts: int, batch_tokens: int, path_name: str) -> dict[str, Any]:
    """Texts per second of the passage column, longest first, packed up to `batch_tokens`."""
    encoder = load(shape, path, device, lora=False)
    ids = columns(texts, shape.sizes["vocab_size"], seed=3)[1]
    written = [text_of(row) for row in ids]

    tokenizer = _tokenizer(path)

    def tokenised(part: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(part)]

    def run(count: int) -> np.ndarray:
        starts = range(0, count, CHUNK)
        with ThreadPoolExecutor(1) as ahead:  # tokenises the next chunk while the device works on this one
            chunks = [ahead.submit(tokenised, written[start : min(count, start + CHUNK)]) for start in starts]
            order, vectors = [], []
            for start, chunk in zip(starts, chunks, strict=True):
                rows = chunk.result()
                for part in _batches([len(row) for row in rows], batch_tokens):
                    vectors.append(EMBED[path_name](encoder, [rows[index] for index in part]))
                    order += [start + index for index in part]
        result = np.empty((count, vectors[0].shape[1]), dtype=np.float32)
        result[order] = torch.cat(vectors).cpu().numpy()
        return result

    with torch.inference_mode():
        run(min(texts, 1500))
        _reset_peak(device)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            run(texts)
            seconds.append(time.perf_counter() - started)
    lengths = np.array([len(row) for row in ids])
    return {
        "texts_per_second": texts / float(np.median(seconds)),
        "seconds": seconds,
        "lengths": lengths,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0,
    }


def _batches(lengths: list[int], batch_tokens: int) -> list[list[int]]:
    """Indices, longest first, in batches of at most `batch_tokens` tokens."""
    batches: list[list[int]] = []
    used = batch_tokens
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if used + lengths[index] > batch_tokens:
            batches.append([])
            used = 0
        batches[-1].append(index)
        used += lengths[index]
    return batches


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
