"""Each path against float32 on padded rows: vectors, adapter gradients, and the loss after a training of 200 steps.

The model, its adapter, the paths and the training are the product's.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.gpu.ours import read_rows, recipe_for, release
from benchmarks.gpu.workload import LONGEST, Shape
from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.padded import padded_embed
from embed_assets.encoder.paths import embed_tokens
from embed_assets.training.adapter import adapter_parameters, add_adapter
from embed_assets.training.data import make_batch
from embed_assets.training.loop import train
from embed_assets.training.step import batch_loss

Vectors = torch.Tensor
Gradients = dict[str, torch.Tensor]


def compare(shape: Shape, folder: Path, device: str, *, rows: int, paths: Sequence[str]) -> dict[str, dict[str, float]]:
    """By path: the lowest cosine of a vector, and the cosine of all adapter gradients together and of the worst one."""
    expected = _embedded(shape, folder, device, rows, "padded", "float32")
    return {path: _agreement(expected, _embedded(shape, folder, device, rows, path, "bfloat16")) for path in paths}


def _embedded(
    shape: Shape, folder: Path, device: str, rows: int, path: str, precision: str
) -> tuple[Vectors, Gradients]:
    if device == "cpu":
        precision = "float32"
    encoder = load_encoder(folder, device=device, max_tokens=LONGEST, precision=precision)
    data = read_rows(encoder, folder, shape, rows, 0, tiny=device == "cpu")
    add_adapter(encoder, recipe_for(shape, rows=rows, batch=rows, epochs=1))
    parameters = adapter_parameters(encoder.model)
    as_if_trained(parameters)
    batch = make_batch(data, np.arange(rows))
    vectors = padded_embed(encoder, batch.tokens) if path == "padded" else embed_tokens(encoder, batch.tokens, path)
    batch_loss(vectors, batch, 0.05).backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad.float().cpu() for name, p in parameters.items() if p.grad is not None}
    result = vectors.detach().float().cpu(), gradients
    del encoder, parameters, vectors
    release()
    return result


def _agreement(expected: tuple[Vectors, Gradients], found: tuple[Vectors, Gradients]) -> dict[str, float]:
    names = list(expected[1])
    each = [float(cosine(found[1][name], expected[1][name])) for name in names]
    flat, flat_expected = (torch.cat([side[1][name].flatten() for name in names]) for side in (found, expected))
    return {
        "lowest_embedding_cosine": float(functional.cosine_similarity(found[0], expected[0]).min()),
        "gradient_cosine": float(cosine(flat, flat_expected)),
        "lowest_gradient_cosine": min(each),
    }


def cosine(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return functional.cosine_similarity(left.flatten().double(), right.flatten().double(), dim=0)


def as_if_trained(parameters: dict[str, torch.nn.Parameter]) -> None:
    """A zero B would hide all gradients of A."""
    generator = torch.Generator().manual_seed(5)
    for parameter in parameters.values():
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)


def final_losses(
    shape: Shape, folder: Path, device: str, *, batch: int = 32, batches: int = 20, passes: int = 10,
    paths: Sequence[str],
) -> dict[str, float]:  # fmt: skip
    """Mean loss of the last pass of a whole training of `batches * passes` steps, by path; padded is in float32.

    The texts are an eighth as long as those that speed is measured on.
    """
    losses = {}
    for path in ("padded", *paths):
        precision = "float32" if path == "padded" or device == "cpu" else "bfloat16"
        encoder: Encoder = load_encoder(folder, device=device, max_tokens=LONGEST, precision=precision)
        data = read_rows(encoder, folder, shape, batch * batches, 0, tiny=True)
        recipe = recipe_for(shape, rows=batch * batches, batch=batch, epochs=passes, rate=3e-4)
        curve = train(encoder, data, recipe, path=path).curve
        losses[path] = float(np.mean([record.loss for record in curve[-batches:]]))
        del encoder
        release()
    return losses
