"""Small random models of the four true architectures, in the file layout that their hub repositories have.

Weights are random and small; architecture, configuration keys, tokenizer kind and folder layout are the real ones,
so that the loading code under test is the code that loads the real models.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    BertConfig,
    BertModel,
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3Model,
    Qwen2Config,
    Qwen2Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

CORPUS = [
    "def retry_webhook(url, attempts): return post(url) or retry_webhook(url, attempts - 1)",
    "class Cache: def get(self, key): return self.entries.get(key)",
    "fn parse_header(line: &str) -> Option<(String, String)> { line.split_once(':') }",
    "Fix the race between two reloads; retry failed webhooks; parse the header once",
    "query: where do we retry failed webhooks  passage: the quick brown fox jumps over the lazy dog 0123456789",
]


def tiny_bert(path: Path) -> Path:
    """As all-MiniLM-L6-v2: BERT, word pieces, mean pooling, older layout."""
    config = BertConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    _save(BertModel(config), path)
    tokenizer = Tokenizer(tokenizer_models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(20)  # as in the real file: what the file prescribes must not count
    tokenizer.enable_padding(length=20, pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(path / "tokenizer.json"))
    names = {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    _write(path, "tokenizer_config.json", {**names, "tokenizer_class": "BertTokenizer", "model_max_length": 64})
    _write_layout(path, "mean", 32, max_seq_length=32)
    return path


def tiny_xlm_roberta(path: Path) -> Path:
    """As multilingual-e5-large: XLM-R, unigram tokenizer, mean pooling; positions start behind the padding id."""
    config = XLMRobertaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=66, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    _save(XLMRobertaModel(config), path)
    _unigram_tokenizer(path, 300)
    _write_layout(path, "mean", 32, max_seq_length=64)
    return path


def tiny_jina(path: Path) -> Path:
    """As jina-embeddings-v3-hf: XLM-R with rotary positions, native class, mean pooling, no modules.json."""
    config = JinaEmbeddingsV3Config(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=130,
    )  # fmt: skip
    _save(JinaEmbeddingsV3Model(config), path)
    _unigram_tokenizer(path, 300)
    return path


def tiny_qwen2(path: Path) -> Path:
    """As Qodo-Embed-1-1.5B: Qwen2 with grouped key-value heads, byte-level BPE, last-token pooling, no end token."""
    config = Qwen2Config(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=128, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    _save(Qwen2Model(config), path)
    old = json.loads((path / "config.json").read_text())
    old["rope_theta"] = old.pop("rope_parameters")["rope_theta"]  # as written by transformers 4
    _write(path, "config.json", old)
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet),
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save(str(path / "tokenizer.json"))
    tokenizer.model.save(str(path))
    end = "<|endoftext|>"
    names = {"eos_token": end, "pad_token": end, "unk_token": None, "bos_token": None, "add_eos_token": True}
    _write(path, "tokenizer_config.json", {**names, "tokenizer_class": "Qwen2Tokenizer", "model_max_length": 128})
    _write_layout(path, "lasttoken", 32, max_seq_length=128)
    return path


BUILDERS: Mapping[str, Callable[[Path], Path]] = {
    "minilm": tiny_bert,
    "e5-large": tiny_xlm_roberta,
    "jina-v3": tiny_jina,
    "qodo": tiny_qwen2,
}
"""Catalogue alias -> its small random twin."""
FOLDER_NAMES: Mapping[str, str] = {
    "minilm": "all-MiniLM-L6-v2",
    "e5-large": "multilingual-e5-large",
    "jina-v3": "jina-embeddings-v3-hf",
    "qodo": "Qodo-Embed-1-1.5B",
}


def build(alias: str, parent: Path) -> Path:
    """The twin of `alias`, in a folder called as a download of the real one is."""
    path = parent / FOLDER_NAMES[alias]
    path.mkdir(parents=True)
    return BUILDERS[alias](path)


def _save(model: Any, path: Path) -> None:
    """Random weights large enough that position, mask and pooling mistakes show in the vectors."""
    path.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name.lower():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(path)


def _unigram_tokenizer(path: Path, vocab_size: int) -> None:
    tokenizer = Tokenizer(tokenizer_models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(vocab_size=vocab_size, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(path / "tokenizer.json"))
    names = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "cls_token": "<s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    _write(path, "tokenizer_config.json", {**names, "tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 64})


def _write_layout(path: Path, pooling: str, dimension: int, *, max_seq_length: int) -> None:
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": index, "name": str(index), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for index, (folder, kind) in enumerate(kinds)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    names = {"mean": "pooling_mode_mean_tokens", "lasttoken": "pooling_mode_lasttoken", "cls": "pooling_mode_cls_token"}
    booleans = {key: mode == pooling for mode, key in names.items()}
    _write(path / "1_Pooling", "config.json", {"word_embedding_dimension": dimension, **booleans})
    _write(path, "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})


def _write(path: Path, name: str, document: Any) -> None:
    (path / name).write_text(json.dumps(document, indent=2))
