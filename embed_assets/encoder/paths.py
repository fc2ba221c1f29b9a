"""Which way token rows take through the model: padded, flat, packed or fused. All give the same vectors.

padded: anywhere. flat: CPU, no padding, BERT-like models written out. packed: CUDA, no padding at all. fused: CUDA,
hand-written kernels for Qwen2-like models. docs/training.md shows them in a picture.
"""

import importlib
import logging
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

from embed_assets.encoder.layout import ModelError
from embed_assets.encoder.padded import padded_embed

if TYPE_CHECKING:
    import torch

    from embed_assets.encoder.encoder import Encoder

Path = Literal["padded", "flat", "packed", "fused"]
ALLOWED = ("auto", "padded", "flat", "packed", "fused")
logger = logging.getLogger(__name__)


def choose_path(encoder: "Encoder", requested: str = "auto") -> Path:
    """The fastest path that the device and the model allow, or the one that was asked for; logs why.

    `auto` leaves the fused path out until a dated report proves it on a GPU: ask for it by name to try it.

    Raises:
        ModelError: the path asked for does not work here, or there is none of this name.
    """
    if requested not in ALLOWED:
        raise ModelError(f"there is no path {requested!r}; allowed: {', '.join(ALLOWED)}")
    device = encoder.device.type
    if requested == "padded" or (requested == "auto" and device not in ("cuda", "cpu")):
        logger.debug("path padded: %s", "asked for" if requested == "padded" else f"device is {device}")
        return "padded"
    reasons = []
    automatic: tuple[Path, ...] = ("flat",) if device == "cpu" else ("packed",)
    for path in automatic if requested == "auto" else (cast(Path, requested),):
        reason = _unsupported(encoder, path)
        if reason is None:
            logger.debug("path %s: %s", path, "asked for" if requested == path else "fastest for this model and device")
            return path
        reasons.append(f"{path}: {reason}")
    if requested != "auto":
        raise ModelError(f"path {requested!r} does not work here ({'; '.join(reasons)}); use auto or padded")
    logger.debug("path padded: %s", "; ".join(reasons))
    return "padded"


def embed_tokens(
    encoder: "Encoder", rows: Sequence[Sequence[int]], path: str = "auto"
) -> "torch.Tensor":  # (rows, dim), unit rows
    """Vectors of token rows in one pass; differentiable when gradients are enabled.

    Raises:
        ModelError: the path asked for does not work here.
    """
    chosen = choose_path(encoder, path) if path == "auto" else path
    if chosen == "padded":
        return padded_embed(encoder, rows)
    module = importlib.import_module("embed_assets.encoder.flat_lora") if chosen == "flat" else _module(chosen)
    embed: Callable[[Encoder, Sequence[Sequence[int]]], torch.Tensor] = getattr(module, f"{chosen}_embed")
    return embed(encoder, rows)


def _unsupported(encoder: "Encoder", path: str) -> str | None:
    """Why a path does not work here; None when it does."""
    reason: Callable[[Encoder], str | None] = getattr(_module(path), f"{path}_supported")
    return reason(encoder)


def _module(path: str) -> ModuleType:
    """`encoder/flat.py`, `packed.py` or `fused.py`: loaded on the devices that can run them, and only there."""
    return importlib.import_module(f"embed_assets.encoder.{path}")
