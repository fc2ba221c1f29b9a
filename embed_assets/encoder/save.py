"""Writes a model folder in the older sentence-transformers layout, the one that every consumer reads.

`SentenceTransformer(path)`, text-embeddings-inference, vLLM and this package read it: modules.json with
`sentence_transformers.models.*` types, `1_Pooling/config.json` with the `pooling_mode_*` booleans, both spellings of
the rotary base, weights in safetensors.
"""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.layout import POOLING_BOOLEANS, POOLING_NAMES, ModelError, weight_files
from embed_assets.encoder.load import quiet_transformers

if TYPE_CHECKING:
    import torch

MODULE_TYPES = (
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Normalize", "sentence_transformers.models.Normalize"),
)
POOLER = "pooler."


def save_model(encoder: Encoder, directory: Path, *, precision: str = "float32") -> None:
    """Writes the encoder's model, tokenizer and settings into `directory`, which exists and is empty.

    Args:
        encoder: without an adapter: merge it first.
        precision: float32 or float16; bfloat16 would round a small learnt change away.

    Raises:
        ModelError: the model carries an unmerged adapter, or the precision is not one of the two.
    """
    import torch

    if precision not in ("float32", "float16"):
        raise ModelError(f"precision is {precision!r}; allowed: float32, float16 (bfloat16 rounds a small change away)")
    weights = encoder.model.state_dict()
    adapters = [name for name in weights if "lora_" in name]
    if adapters:
        raise ModelError(f"the model carries an unmerged adapter ({adapters[0]} ...); merge it before saving")
    dtype = getattr(torch, precision)
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in _with_pooler(encoder).items()}
    _write_weights(encoder.model, tensors, directory)
    _write_json(directory / "config.json", _config(encoder, precision))
    _write_settings(encoder, directory)
    _write_tokenizer(encoder, directory)


def _with_pooler(encoder: Encoder) -> "dict[str, torch.Tensor]":
    """The weights, and the pooling head that was left out at load: no vector reads it, but consumers expect it."""
    from safetensors import safe_open

    weights: dict[str, torch.Tensor] = dict(encoder.model.state_dict())
    for file in weight_files(encoder.path):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                short = name[name.index(POOLER) :] if POOLER in name else ""
                if short and short not in weights:
                    weights[short] = tensors.get_tensor(name)
    return weights


def _write_weights(model: Any, tensors: "dict[str, torch.Tensor]", directory: Path) -> None:
    """Weights under the names that the architecture has on disk, in files of at most 5 GB."""
    with quiet_transformers():
        model.save_pretrained(str(directory), state_dict=tensors, max_shard_size="5GB")


def _config(encoder: Encoder, precision: str) -> dict[str, Any]:
    config: dict[str, Any] = encoder.model.config.to_dict()  # type: ignore[union-attr, operator]
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
    config.pop("auto_map", None)
    config.pop("_name_or_path", None)
    for key in ("dtype", "torch_dtype"):
        config[key] = precision
    config["architectures"] = [type(encoder.model).__name__]
    config["is_causal"] = encoder.causal
    return config


def _write_settings(encoder: Encoder, directory: Path) -> None:
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": kind}
        for index, (path, kind) in enumerate(MODULE_TYPES)
    ]
    _write_json(directory / "modules.json", modules)
    active = next(name for name, pooling in POOLING_NAMES.items() if pooling == encoder.pooling)
    pooling = {"word_embedding_dimension": encoder.dimension, "include_prompt": True}
    pooling |= {key: mode == active for key, mode in POOLING_BOOLEANS.items()}
    (directory / "1_Pooling").mkdir()
    _write_json(directory / "1_Pooling" / "config.json", pooling)
    _write_json(directory / "sentence_bert_config.json", {"max_seq_length": encoder.max_tokens, "do_lower_case": False})
    prompts = {
        "query": encoder.query_prompt,
        "passage": encoder.passage_prompt,
        "document": encoder.passage_prompt,
    }
    _write_json(
        directory / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def _write_tokenizer(encoder: Encoder, directory: Path) -> None:
    """The tokenizer with the end token in its own template, so that every consumer appends it."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(encoder.tokenizer)
    if encoder.affixes.appended:
        ids = (*encoder.affixes.prefix, *encoder.affixes.suffix)
        names = dict(zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True))
        around = [names[token] for token in encoder.affixes.prefix], [names[token] for token in encoder.affixes.suffix]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=[*around[0], "$A", *around[1]],
            pair=None,
            special_tokens=[(name, key) for key, name in names.items()],
        )
    tokenizer.save_pretrained(str(directory))
    settings = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"model_max_length": encoder.max_tokens, "padding_side": "right", "truncation_side": "right"}
    settings.pop("auto_map", None)
    if encoder.affixes.appended:
        settings["add_eos_token"] = True
    _write_json(directory / "tokenizer_config.json", settings)


def _write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
