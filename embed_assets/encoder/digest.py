"""What a model folder is, as one digest: two folders share it exactly when they give the same vectors.

It covers the files that a consumer reads to compute vectors and leaves out what lies beside them (an adapter,
a report, a manifest). It imports no torch.
"""

import json
from pathlib import Path

from embed_assets.encoder.layout import ModelError
from embed_assets.files import file_sha256
from embed_assets.records import digest_of, digest_of_json

SERVABLE_FILES = (
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)


def servable_files(path: Path) -> list[Path]:
    """The files of a model folder that decide its vectors, in a fixed order.

    Raises:
        ModelError: there is no config.json or no weights.
    """
    files = [path / name for name in SERVABLE_FILES if (path / name).is_file()]
    weights = sorted(path.glob("model*.safetensors"))
    if not weights or not (path / "config.json").is_file():
        raise ModelError(f"{path} is no servable model: it needs config.json and model.safetensors")
    return sorted({*files, *weights, *_module_files(path)})


def model_digest(path: Path) -> str:
    """Digest of the names and contents of all servable files, 40 hex digits.

    Raises:
        ModelError: there is no config.json or no weights.
    """
    return digest_of_json({file.relative_to(path).as_posix(): file_sha256(file) for file in servable_files(path)})


def space_id(model: str, *, dimension: int, max_tokens: int, precision: str) -> str:
    """Which vector space: vectors with different ids are never compared.

    Args:
        model: digest of the model's files; it covers weights, tokenizer, pooling and prompts.
        precision: data type of the computation, such as `float32`.
    """
    return digest_of(model, str(dimension), str(max_tokens), precision)[:20]


def _module_files(path: Path) -> list[Path]:
    """Files in the folders that modules.json names, such as 1_Pooling/config.json."""
    listing = path / "modules.json"
    if not listing.is_file():
        return []
    folders = [path / entry["path"] for entry in json.loads(listing.read_text(encoding="utf-8")) if entry.get("path")]
    return [file for folder in folders for file in folder.glob("*") if file.suffix in (".json", ".safetensors")]
