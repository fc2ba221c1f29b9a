"""What both sides work on: models of the catalogue's shapes with random weights, and synthetic rows of realistic lengths.

Speed does not depend on what the weights and tokens say, only on shapes and lengths. Lengths are lognormal: queries
with a median of 24 tokens, passages with one of 150, cut at 512: 215 real tokens a row on average, 405 with a negative.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LORA_RANK, LORA_ALPHA = 16, 32
TEMPERATURE = 0.05
LEARNING_RATE = 5e-5
FIRST_WORD = 10
"""Token ids below are special."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One model's architecture, by name of the catalogue."""

    model_type: str
    sizes: dict[str, Any]
    targets: tuple[str, ...]
    pooling: str

    @property
    def causal(self) -> bool:
        return self.model_type == "qwen2"


_BERT = ("query", "key", "value", "dense")
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
SHAPES = {
    "qodo": Shape(
        model_type="qwen2",
        sizes={
            "vocab_size": 151_646, "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12,
            "num_key_value_heads": 2, "intermediate_size": 8960, "max_position_embeddings": 32_768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "use_cache": False,
        },
        targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        pooling="last",
    ),
    "e5-large": Shape(
        model_type="xlm-roberta",
        sizes={"vocab_size": 250_002, "max_position_embeddings": 514, "pad_token_id": 1, **_LARGE},
        targets=_BERT,
        pooling="mean",
    ),
    "jina-v3": Shape(
        model_type="jina_embeddings_v3",
        sizes={"vocab_size": 250_002, "max_position_embeddings": 8194, "pad_token_id": 1, **_LARGE},
        targets=("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
        pooling="mean",
    ),
    "minilm": Shape(
        model_type="bert",
        sizes={
            "vocab_size": 30_522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
            "intermediate_size": 1536, "max_position_embeddings": 512,
        },
        targets=_BERT,
        pooling="mean",
    ),
}  # fmt: skip


def shrunk(shape: Shape) -> Shape:
    """The same architecture small enough for a CPU, to try the programs out."""
    small = {
        "vocab_size": 4096,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
    }
    if shape.model_type == "qwen2":
        small["num_key_value_heads"] = 2
    return Shape(model_type=shape.model_type, sizes=shape.sizes | small, targets=shape.targets, pooling=shape.pooling)


def columns(
    rows: int, vocabulary: int, *, negatives: int = 0, seed: int = 1, tiny: bool = False
) -> list[list[np.ndarray]]:
    """Queries, positives and any hard negatives: each a list of (tokens,) int64 arrays."""
    random = np.random.default_rng(seed)

    def column(median: float, sigma: float, shortest: int, longest: int) -> list[np.ndarray]:
        drawn = np.exp(random.normal(np.log(median), sigma, rows))
        lengths = np.clip(np.round(drawn / (8 if tiny else 1)), shortest, longest).astype(int)
        return [random.integers(FIRST_WORD, vocabulary, size=length) for length in lengths]

    return [column(24, 0.6, 5, 128), *(column(150, 0.8, 16, 512) for _ in range(1 + negatives))]


def text_of(ids: np.ndarray) -> str:
    return " ".join(f"t{token}" for token in ids)


def save_checkpoint(shape: Shape, folder: Path, device: str) -> Path:
    """A random model and a word-level tokenizer for `text_of`, in transformers' layout; bfloat16 for Qwen2."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    if (folder / "done").is_file():
        return folder
    torch.manual_seed(0)
    config = AutoConfig.for_model(shape.model_type, **shape.sizes)
    extra = {} if shape.causal else {"add_pooling_layer": False}
    with torch.device(device):
        model = AutoModel.from_config(config, dtype=torch.bfloat16 if shape.causal else torch.float32, **extra)
    model.save_pretrained(folder)
    words = {f"t{index}": index for index in range(FIRST_WORD, shape.sizes["vocab_size"])}
    words |= {name: index for index, name in enumerate(["<s>", "<pad>", "</s>", "<unk>"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", model_max_length=512,
        padding_side="right",
    )  # fmt: skip
    fast.save_pretrained(folder)
    (folder / "done").touch()
    return folder


def linear_parameters(sizes: dict[str, Any], *, gated: bool) -> int:
    """Weights of the layers' matrices: what a token is multiplied with."""
    dim, ffn, heads = sizes["hidden_size"], sizes["intermediate_size"], sizes["num_attention_heads"]
    key_value = sizes.get("num_key_value_heads", heads) * (dim // heads)
    per_layer = 2 * dim * dim + 2 * dim * key_value + (3 if gated else 2) * dim * ffn
    return int(sizes["num_hidden_layers"] * per_layer)


def adapter_parameters(sizes: dict[str, Any], *, gated: bool) -> int:
    dim, ffn, heads = sizes["hidden_size"], sizes["intermediate_size"], sizes["num_attention_heads"]
    key_value = sizes.get("num_key_value_heads", heads) * (dim // heads)
    inputs_and_outputs = 4 * dim + 2 * (dim + key_value) + (3 if gated else 2) * (dim + ffn)
    return int(sizes["num_hidden_layers"] * LORA_RANK * inputs_and_outputs)


def training_flops(shape: Shape, lengths: np.ndarray) -> float:
    """Of one step with LoRA on real tokens, nothing recomputed: forward, input gradients, adapter gradients."""
    sizes, gated = shape.sizes, shape.causal
    weights, adapters = linear_parameters(sizes, gated=gated), adapter_parameters(sizes, gated=gated)
    return float(lengths.sum()) * (4 * weights + 6 * adapters) + 3 * _attention_flops(shape, lengths)


def encoding_flops(shape: Shape, lengths: np.ndarray) -> float:
    """Of one forward on real tokens."""
    return float(lengths.sum()) * 2 * linear_parameters(shape.sizes, gated=shape.causal) + _attention_flops(
        shape, lengths
    )


def _attention_flops(shape: Shape, lengths: np.ndarray) -> float:
    per_layer = 4 * float(np.square(lengths, dtype=np.float64).sum()) * shape.sizes["hidden_size"]
    return float(per_layer * shape.sizes["num_hidden_layers"] * (0.5 if shape.causal else 1.0))
