"""The flat path, for BERT and XLM-R on CPUs: token rows end to end without padding, layers written out.

Linear layers see one long matrix of tokens; attention goes row by row, rows of equal length together. This module
knows the rows and where a model's weights are; `flat_encode` is the way without gradients, `flat_lora` the one with.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embed_assets.encoder.fused_bert import BERT_MODULES, layers_of
from embed_assets.encoder.packed import FIRST_POSITION

if TYPE_CHECKING:
    from torch import Tensor

    from embed_assets.encoder.encoder import Encoder

MODEL_TYPES = ("bert", "xlm-roberta")
GROUPS = ("qkv", "output", "up", "down")
"""Linear layers with one input, in the order of a layer's forward pass."""
MULTIPLE = 16
"""Tokens are filled up to a multiple: oneDNN prepares a kernel for every new number of them."""
ALONE_FROM = 64
"""Rows of so many tokens attend one by one: together their weights leave the caches, and gain nothing."""


@dataclass(frozen=True, slots=True)
class FlatRows:
    """Rows end to end, by length."""

    token_ids: "Tensor"
    """(tokens,) int64, zeros at the end"""
    positions: "Tensor"
    """(tokens,) int64, from zero in each row"""
    groups: tuple[tuple[int, int, int], ...]
    """(first token, rows, tokens of each row): short rows of one length together, long ones each alone"""
    order: list[int]
    """Number of the given row that is the first here, the second ..."""


def flatten(rows: Sequence[Sequence[int]], *, spare: int = 0) -> FlatRows:
    """Puts rows end to end, equal lengths side by side, with at least `spare` tokens after the last."""
    lengths = [len(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (-lengths[index], index))
    size = filled_tokens(sum(lengths), spare)
    token_ids, positions = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    groups: list[tuple[int, int, int]] = []
    at = 0
    for index in order:
        length = lengths[index]
        token_ids[at : at + length] = rows[index]
        positions[at : at + length] = np.arange(length)
        if groups and groups[-1][2] == length < ALONE_FROM:
            first, count, _ = groups[-1]
            groups[-1] = (first, count + 1, length)
        else:
            groups.append((at, 1, length))
        at += length
    return FlatRows(torch.from_numpy(token_ids), torch.from_numpy(positions), tuple(groups), order)


def filled_tokens(tokens: int, spare: int = 0) -> int:
    """Tokens that are computed for so many real ones."""
    return -(-(tokens + spare) // MULTIPLE) * MULTIPLE


def pool_rows(states: "Tensor", rows: FlatRows, pooling: str) -> "Tensor":  # (tokens, dim) -> (rows, dim)
    """Mean, last or first token of each row, in the order in which the rows were given."""
    pooled = states.new_empty(len(rows.order), states.shape[1])
    place = 0
    for first, count, length in rows.groups:
        block = states[first : first + count * length].view(count, length, -1)
        chosen = {"mean": lambda b: b.mean(dim=1), "last": lambda b: b[:, -1], "cls": lambda b: b[:, 0]}[pooling](block)
        pooled[rows.order[place : place + count]] = chosen
        place += count
    return pooled


def spread_gradient(gradient: "Tensor", rows: FlatRows, pooling: str) -> "Tensor":  # (rows, dim) -> (tokens, dim)
    """The gradient of `pool_rows`."""
    spread = gradient.new_zeros(len(rows.token_ids), gradient.shape[1])
    place = 0
    for first, count, length in rows.groups:
        block = spread[first : first + count * length].view(count, length, -1)
        own = gradient[rows.order[place : place + count]]  # (count, dim)
        if pooling == "mean":
            block.copy_((own / length)[:, None])
        else:
            block[:, -1 if pooling == "last" else 0] = own
        place += count
    return spread


def embedding_block(model: Any, rows: FlatRows) -> "Tensor":  # (tokens, dim)
    """What the first layer reads: the model's own module, nothing in it is trained."""
    ids, positions = rows.token_ids[None], (rows.positions + FIRST_POSITION[model.config.model_type])[None]
    with torch.no_grad():
        states: Tensor = model.embeddings(input_ids=ids, position_ids=positions)[0]
    return states


def transformer_of(encoder: "Encoder") -> Any:
    """The encoder's model, without PEFT's wrapper around it."""
    model: Any = encoder.model
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def linear_groups(model: Any) -> list[dict[str, list[Any]]]:
    """Of each layer: the linear modules of each group."""
    return [
        {name: [layer.get_submodule(path) for path in BERT_MODULES[name]] for name in GROUPS}
        for layer in layers_of(model)
    ]


def norms(model: Any) -> list[tuple[Any, Any]]:
    """Of each layer: the norm after attention, and the one after the feed-forward network."""
    names = (BERT_MODULES["norm"][0], BERT_MODULES["mlp_norm"][0])
    return [(layer.get_submodule(names[0]), layer.get_submodule(names[1])) for layer in layers_of(model)]


def adapter_of(linear: Any) -> "tuple[Tensor, Tensor, float] | None":
    """A (rank, in), B (out, rank) and the scale of a linear layer's LoRA adapter; None where it has none."""
    if not hasattr(linear, "lora_A"):
        return None
    name = linear.active_adapters[0]
    return linear.lora_A[name].weight, linear.lora_B[name].weight, float(linear.scaling[name])


def base_of(linear: Any) -> Any:
    """The frozen linear layer below an adapter."""
    return linear.get_base_layer() if hasattr(linear, "get_base_layer") else linear


@dataclass(frozen=True, slots=True, eq=False)
class WeightState:
    """Which weights a model's layers have, adapters included, in which version: whether what was made of them holds."""

    weights: "tuple[Tensor, ...]"
    """Held, so that no other tensor can take their place in memory."""
    versions: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, model: Any) -> "WeightState":
        weights = tuple(
            weight
            for layer in linear_groups(model)
            for group in layer.values()
            for linear in group
            for weight in (base_of(linear).weight, *(adapter_of(linear) or ())[:2])
        )
        return cls(weights, tuple((weight.data_ptr(), weight._version) for weight in weights))

    def same_tensors(self, other: "WeightState") -> bool:
        return len(self.weights) == len(other.weights) and all(map(operator.is_, self.weights, other.weights))

    def unchanged(self, other: "WeightState") -> bool:
        """Whether nothing was written to them either."""
        return self.versions == other.versions and self.same_tensors(other)


def flat_supported(encoder: "Encoder") -> str | None:
    """None when the flat path gives this encoder's embeddings, else the reason why not."""
    from embed_assets.encoder.fused_lora import adapter_problem

    model = transformer_of(encoder)
    config = model.config
    if encoder.device.type != "cpu":
        return f"it is written for CPUs, the encoder is on {encoder.device}"
    if config.model_type not in MODEL_TYPES:
        return f"model type {config.model_type!r} is not written out; known: {', '.join(MODEL_TYPES)}"
    if encoder.causal:
        return "the model reads from left to right"
    if config.hidden_act != "gelu":
        return f"the model's activation is {config.hidden_act!r}; known: 'gelu'"
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        return f"positions are {config.position_embedding_type!r}; known: 'absolute'"
    if encoder.precision != "float32":
        return f"the weights are {encoder.precision}; known: float32"
    if model.training and max(config.hidden_dropout_prob, config.attention_probs_dropout_prob):
        return "the model is in training mode with dropout: call model.eval()"
    return adapter_problem([linear for layer in linear_groups(model) for group in layer.values() for linear in group])
