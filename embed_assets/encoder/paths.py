"""Which way token rows take through the model: padded, flat, packed or fused. All give the same vectors.

padded: anywhere, in the model's own precision. flat: CPU, no padding, BERT-like models written out. packed: CUDA, no
padding, any model. fused: CUDA, no padding, the layers written out. The last two compute in bfloat16.
docs/training.md shows them in a picture.
"""

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

from embed_assets.encoder.layout import ModelError
from embed_assets.encoder.packing import MULTIPLE, token_batches
from embed_assets.encoder.padded import length_batches, padded_embed

if TYPE_CHECKING:
    import torch

    from embed_assets.encoder.encoder import Encoder

Path = Literal["padded", "flat", "packed", "fused"]
ALLOWED = ("auto", "padded", "flat", "packed", "fused")
FASTEST_FIRST: Mapping[str, tuple[Path, ...]] = {"cuda": ("fused", "packed"), "cpu": ("flat",)}
"""By device; measured in benchmarks/reports. Everywhere else, and where none of them works, rows are padded."""
logger = logging.getLogger(__name__)


def choose_path(encoder: "Encoder", requested: str = "auto", *, level: int = logging.DEBUG) -> Path:
    """The fastest path that the device and the model allow, or the one that was asked for.

    Args:
        level: at which the log says which path it is and why.

    Raises:
        ModelError: the path asked for does not work here, or there is none of this name.
    """
    if requested not in ALLOWED:
        raise ModelError(f"there is no path {requested!r}; allowed: {', '.join(ALLOWED)}")
    if requested == "padded":
        logger.log(level, "path padded: asked for")
        return "padded"
    device = encoder.device.type
    automatic = requested == "auto"
    tried = FASTEST_FIRST.get(device, ()) if automatic else (cast(Path, requested),)
    reasons: list[str] = []
    for path in tried:
        reason = _unsupported(encoder, path)
        if reason is None and automatic and path in ("packed", "fused") and encoder.precision != "bfloat16":
            reason = f"the model is in {encoder.precision}, which this path does not compute in"
        if reason is None:
            why = "; ".join(["fastest for this model and device", *reasons]) if automatic else "asked for"
            logger.log(level, "path %s: %s", path, why)
            return path
        reasons.append(f"{path}: {reason}")
    if not automatic:
        raise ModelError(f"path {requested!r} does not work here ({'; '.join(reasons)}); use auto or padded")
    logger.log(level, "path padded: %s", "; ".join(reasons) or f"device is {device}")
    return "padded"


def embed_tokens(
    encoder: "Encoder", rows: Sequence[Sequence[int]], path: str = "auto", *, activation_budget: int | None = None
) -> "torch.Tensor":  # (rows, dim), unit rows
    """Vectors of token rows in one pass; differentiable when gradients are enabled.

    Args:
        activation_budget: bytes that the pass may keep for its backward: the fused path recomputes what is more.

    Raises:
        ModelError: the path asked for does not work here.
    """
    chosen = choose_path(encoder, path) if path == "auto" else path
    if chosen == "padded":
        return padded_embed(encoder, rows)
    if chosen == "fused":
        from embed_assets.encoder.fused import fused_embed

        return fused_embed(encoder, rows, activation_budget=activation_budget)
    module = importlib.import_module("embed_assets.encoder.flat_lora") if chosen == "flat" else _module(chosen)
    embed: Callable[[Encoder, Sequence[Sequence[int]]], torch.Tensor] = getattr(module, f"{chosen}_embed")
    return embed(encoder, rows)


def row_batches(path: str, lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Row indices in batches of at most `batch_tokens` tokens; on the padded path of like length, padding counted."""
    return (length_batches if path == "padded" else token_batches)(lengths, batch_tokens)


def computed_tokens(encoder: "Encoder", path: str, batches: Sequence[Sequence[int]]) -> int:
    """Tokens that training computes for batches of rows, given by their lengths: the real ones and all padding."""
    if path == "padded":
        return sum(len(lengths) * max(lengths) for lengths in batches)
    if path == "flat":
        from embed_assets.encoder import flat_lora

        return sum(map(flat_lora.computed_tokens, batches))
    if path == "packed":
        return sum(-(-sum(lengths) // MULTIPLE) * MULTIPLE for lengths in batches)
    from embed_assets.encoder import fused

    return sum(fused.computed_tokens(encoder, sum(lengths)) for lengths in batches)


def _unsupported(encoder: "Encoder", path: str) -> str | None:
    """Why a path does not work here; None when it does."""
    reason: Callable[[Encoder], str | None] = getattr(_module(path), f"{path}_supported")
    return reason(encoder)


def _module(path: str) -> ModuleType:
    """`encoder/flat.py`, `packed.py` or `fused.py`: loaded on the devices that can run them, and only there."""
    return importlib.import_module(f"embed_assets.encoder.{path}")
