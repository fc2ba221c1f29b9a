"""What both sides work on: models of the catalogue's shapes with random weights, and synthetic rows of realistic lengths.

Speed does not depend on what the weights and tokens say, only on shapes and lengths. Lengths are lognormal: queries
with a median of 24 tokens, passages with one of 150, cut at 510: 219 real tokens a row on average, with the tokens
around a text; 410 with a negative.
"""

import json
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LORA_RANK, LORA_ALPHA = 16, 32
TEMPERATURE = 0.05
LEARNING_RATE = 5e-5
LETTERS = string.ascii_letters
SPECIAL = ("<s>", "<pad>", "</s>")
FIRST_WORD = len(SPECIAL) + 256 + 52 + 52**2
"""Token ids below are special tokens, bytes and beginnings of words."""
LONGEST = 510
"""Tokens of a text, all included: what XLM-R's positions leave."""


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


def shrunk(shape: Shape, hidden: int = 64) -> Shape:
    """The same architecture small enough for a CPU, to try the programs out, or for a long run in float32."""
    small = {
        "vocab_size": 4096,
        "hidden_size": hidden,
        "num_hidden_layers": 2 if hidden < 256 else 8,
        "num_attention_heads": max(4, hidden // 64),
        "intermediate_size": 3 * hidden // 2 if hidden < 256 else 4 * hidden,
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
        return [random.integers(FIRST_WORD, last_word(vocabulary), size=length) for length in lengths]

    return [column(24, 0.6, 5, 128), *(column(150, 0.8, 16, LONGEST - 3) for _ in range(1 + negatives))]


def word_of(token: int) -> str:
    """Three letters that are one token."""
    place = token - FIRST_WORD
    return LETTERS[place // 52**2] + LETTERS[place // 52 % 52] + LETTERS[place % 52]


def last_word(vocabulary: int) -> int:
    """Behind the last token that is a word."""
    return min(vocabulary, FIRST_WORD + 52**3)


def text_of(ids: np.ndarray) -> str:
    """A text of a token more than `ids`: before the first word there is no space."""
    return " ".join(["x", *map(word_of, ids.tolist())])


def write_pairs(file: Path, rows: int, vocabulary: int, *, negatives: int = 0, tiny: bool = False) -> list[list[str]]:
    """Writes the rows as the product reads them, JSON lines, and returns the same texts by column."""
    table = [[text_of(ids) for ids in column] for column in columns(rows, vocabulary, negatives=negatives, tiny=tiny)]
    with file.open("w", encoding="utf-8") as lines:
        for query, positive, *others in zip(*table, strict=True):
            lines.write(json.dumps({"query": query, "positive": positive, "hard_negatives": others}) + "\n")
    return table


def save_checkpoint(shape: Shape, folder: Path, device: str) -> Path:
    """A random model with a word-level tokenizer for `text_of`, in the layout of sentence-transformers."""
    import torch
    from transformers import AutoConfig, AutoModel

    if (folder / "done").is_file():
        return folder
    torch.manual_seed(0)
    config = AutoConfig.for_model(shape.model_type, **shape.sizes)
    extra = {} if shape.causal else {"add_pooling_layer": False}
    with torch.device(device):
        model = AutoModel.from_config(config, dtype=torch.bfloat16 if shape.causal else torch.float32, **extra)
    model.save_pretrained(folder)
    _save_tokenizer(folder, shape.sizes["vocab_size"], starts=not shape.causal)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    pooling = {f"pooling_mode_{name}": name.startswith(shape.pooling) for name in ("mean_tokens", "lasttoken")}
    (folder / "1_Pooling").mkdir()
    for name, document in (
        ("modules.json", modules),
        ("1_Pooling/config.json", {"word_embedding_dimension": shape.sizes["hidden_size"], **pooling}),
        ("sentence_bert_config.json", {"max_seq_length": LONGEST, "do_lower_case": False}),
    ):
        (folder / name).write_text(json.dumps(document))
    (folder / "done").touch()
    return folder


def _save_tokenizer(folder: Path, vocabulary: int, *, starts: bool) -> None:
    """Byte-level BPE with one token a word; an end token behind every text, and before it a start token if asked."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    space = "\u0120"  # as byte-level BPE writes it
    firsts = [space + letter for letter in LETTERS]
    seconds = [first + letter for first in firsts for letter in LETTERS]
    words = [space + word_of(token) for token in range(FIRST_WORD, last_word(vocabulary))]
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *firsts, *seconds, *words]
    merges = [(token[:-1], token[-1]) for token in (*firsts, *seconds, *words)]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, merges))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if starts else "$A </s>", pair="$A $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=LONGEST, padding_side="right"
    )
    fast.save_pretrained(folder)
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt: Qwen2's own class reads them
