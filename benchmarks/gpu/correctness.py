"""Each path against float32 on padded rows: vectors, adapter gradients, and the loss after a training of 200 steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from benchmarks.gpu.ours import EMBED, BenchEncoder, contrastive_loss, load, trained
from benchmarks.gpu.workload import Shape, columns


def padded_embed(encoder: BenchEncoder, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """The reference: transformers' own forward with a mask, in the model's precision."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[1] * (longest - len(row))] for row in rows], device=encoder.device)
    lengths = torch.tensor([len(row) for row in rows], device=encoder.device)
    mask = (torch.arange(longest, device=encoder.device) < lengths[:, None]).long()
    extra = {"use_cache": False} if encoder.model.config.model_type == "qwen2" else {}
    states = encoder.model(input_ids=ids, attention_mask=mask, **extra).last_hidden_state
    if encoder.pooling == "last":
        pooled = states[torch.arange(len(rows), device=ids.device), lengths - 1]
    else:
        pooled = (states * mask[..., None]).sum(1) / lengths[:, None]
    return functional.normalize(pooled.float(), dim=1)


def compare(shape: Shape, path: Path, device: str, *, rows: int, longest: int = 256) -> dict[str, dict[str, float]]:
    """By path: the lowest cosine of a vector, and the cosine of all adapter gradients together and of the worst one."""
    ids = columns(rows, shape.sizes["vocab_size"], seed=7)
    tokens = [row[:longest].tolist() for column in ids for row in column]
    results: dict[str, tuple[torch.Tensor, dict[str, torch.Tensor]]] = {}
    for name, dtype in (("float32", torch.float32), ("packed", torch.bfloat16), ("fused", torch.bfloat16)):
        if name == "packed" and device == "cpu":
            continue
        encoder = load(shape, path, device, dtype=dtype)
        _randomise(encoder)
        embeddings = padded_embed(encoder, tokens) if name == "float32" else EMBED[name](encoder, tokens)
        contrastive_loss(embeddings, rows).backward()  # type: ignore[no-untyped-call]
        gradients = {n: p.grad.float().cpu() for n, p in encoder.model.named_parameters() if p.grad is not None}
        results[name] = embeddings.detach().float().cpu(), gradients
        del encoder, embeddings
        if device == "cuda":
            torch.cuda.empty_cache()
    expected, expected_gradients = results.pop("float32")
    return {name: _agreement(expected, expected_gradients, *result) for name, result in results.items()}


def _agreement(
    expected: torch.Tensor,
    expected_gradients: dict[str, torch.Tensor],
    vectors: torch.Tensor,
    gradients: dict[str, torch.Tensor],
) -> dict[str, float]:
    each = [float(_cosine(gradients[name], expected_gradients[name])) for name in expected_gradients]
    flat, flat_expected = (
        torch.cat([g[n].flatten() for n in expected_gradients]) for g in (gradients, expected_gradients)
    )
    return {
        "lowest_embedding_cosine": float(functional.cosine_similarity(vectors, expected).min()),
        "gradient_cosine": float(_cosine(flat, flat_expected)),
        "lowest_gradient_cosine": min(each),
    }


def _cosine(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return functional.cosine_similarity(left.flatten().double(), right.flatten().double(), dim=0)


def _randomise(encoder: BenchEncoder) -> None:
    """Adapters as if trained for a while: a zero B would hide all gradients of A."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in sorted(encoder.model.named_parameters()):
        if "lora_" in name:
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)


def final_losses(
    shape: Shape, path: Path, device: str, *, batch: int = 32, batches: int = 20, steps: int = 200, paths: Sequence[str]
) -> dict[str, float]:
    """Mean loss of the last 20 of `steps` steps over the same few batches, again and again."""
    ids = columns(batch * batches, shape.sizes["vocab_size"], seed=11)
    losses = {}
    for name in ("float32", *paths):
        torch.manual_seed(0)
        encoder = load(shape, path, device, dtype=torch.float32 if name == "float32" else torch.bfloat16)
        embed: Any = padded_embed if name == "float32" else EMBED[name]
        optimizer = torch.optim.AdamW(trained(encoder), lr=3e-4)
        last = []
        for step in range(steps):
            part = slice(step % batches * batch, (step % batches + 1) * batch)
            rows = [row[:128].tolist() for column in ids for row in column[part]]
            loss = contrastive_loss(embed(encoder, rows), batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            last.append(loss.detach())
        losses[name] = float(torch.stack(last[-20:]).mean())
    return losses
