"""Reads a model folder in the sentence-transformers layout: pooling, prompts and longest input.

Both generations of the layout are understood: `pooling_mode_*` booleans and the newer `pooling_mode` name. It
reads JSON only; it knows no weights and imports no torch.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embed_assets import models

PREPROCESSING_MODULES = ("Transformer",)
KNOWN_MODULES = (*PREPROCESSING_MODULES, "Pooling", "Normalize")
POOLING_NAMES: Mapping[str, models.Pooling] = {"mean": "mean", "lasttoken": "last", "cls": "cls"}
POOLING_BOOLEANS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
PASSAGE_PROMPT_NAMES = ("passage", "document", "corpus")
QUERY_PROMPT_NAMES = ("query",)
RESERVED_POSITIONS = ("xlm-roberta", "roberta", "camembert", "mpnet", "xlm-roberta-xl")
"""Architectures whose position ids start after the padding id, so that some of the table is never used."""


class ModelError(RuntimeError):
    """A model folder is incomplete, damaged, or of a kind that is not supported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What a model folder says about itself, completed by the catalogue where it says nothing."""

    path: Path
    config: Mapping[str, Any] = field(repr=False)
    """config.json."""
    model_type: str
    spec: models.BaseModel | None
    """The catalogue's entry for this model, where it is one."""
    pooling: models.Pooling
    query_prompt: str
    passage_prompt: str
    max_tokens: int
    """Longest input by default, special tokens included."""
    position_limit: int
    """Longest input that the architecture has positions for."""
    causal: bool
    """Attention direction."""
    appends_end_token: bool


def read_layout(path: Path) -> Layout:
    """Reads and checks the folder at `path`.

    Raises:
        ModelError: a file is missing or damaged, the weights are pickled, or the model needs code of its own.
    """
    config = read_model_json(path, "config.json")
    model_type = str(config.get("model_type", ""))
    if not model_type:
        raise ModelError(f"{path / 'config.json'} names no model_type; it is no transformers model")
    _require_safetensors(path)
    _refuse_custom_code(path, config)
    spec = catalogue_entry(path, model_type)
    modules = _read_modules(path)
    pooling = _read_pooling(path, modules, spec)
    query_prompt, passage_prompt = _read_prompts(path, spec)
    position_limit = _position_limit(config, model_type, spec)
    sentence = read_model_json(path, "sentence_bert_config.json", required=False)
    declared = sentence.get("max_seq_length")
    return Layout(
        path=path,
        config=config,
        model_type=model_type,
        spec=spec,
        pooling=pooling,
        query_prompt=query_prompt,
        passage_prompt=passage_prompt,
        max_tokens=min((spec.max_tokens if spec else None) or declared or position_limit, position_limit),
        position_limit=position_limit,
        causal=_is_causal(config, spec),
        appends_end_token=_appends_end_token(path, model_type, pooling, spec),
    )


def catalogue_entry(path: Path, model_type: str) -> models.BaseModel | None:
    """The catalogue's entry whose files lie at `path`, told by the folder's name; None for any other folder.

    A hub cache path holds `models--ORGANISATION--NAME`, a downloaded folder is usually called NAME, a Python
    package has its own name. A fine-tuned model carries all it needs in its own files and matches none.
    """
    folder = path.absolute()
    for spec in models.CATALOGUE.values():
        cached = f"models--{spec.repository.replace('/', '--')}"
        if spec.model_type == model_type and (
            folder.name == spec.repository.rsplit("/", 1)[-1]
            or (folder.parent.name == "snapshots" and folder.parent.parent.name == cached)
            or (bool(spec.package) and folder.parent.name == spec.package)
        ):
            return spec
    return None


def read_model_json(path: Path, name: str, *, required: bool = True) -> dict[str, Any]:
    """One JSON object of a model folder; empty when it is missing and not required.

    Raises:
        ModelError: it is missing although required, or damaged.
    """
    try:
        document = json.loads((path / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        raise ModelError(f"{path} has no {name}; a model folder needs it") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path / name} is damaged or cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path / name} holds a {type(document).__name__}, a JSON object is needed")
    return document


def weight_files(path: Path) -> list[Path]:
    return sorted(path.glob("model*.safetensors"))


def parameter_count(path: Path) -> int:
    """Parameters of a model folder, by its files' headers: no weight is read; tables of integers are none.

    Raises:
        ModelError: a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    for file in weight_files(path):
        try:
            with safe_open(file, framework="np") as weights:
                slices = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118 - not a dict
                total += sum(math.prod(each.get_shape()) for each in slices if "F" in each.get_dtype())
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged or cannot be read: {error}") from error
    return total


def _require_safetensors(path: Path) -> None:
    if weight_files(path):
        return
    pickled = sorted(entry.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for entry in path.glob(pattern))
    if pickled:
        raise ModelError(
            f"{path} has pickled weights only ({', '.join(pickled)}), which can run code when loaded; "
            "use a model with model.safetensors"
        )
    raise ModelError(f"{path} has no weights: model.safetensors is missing")


def _refuse_custom_code(path: Path, config: Mapping[str, Any]) -> None:
    """Code that a model brings along is never run; a class that transformers has itself is no such code."""
    auto_map = config.get("auto_map") or {}
    if not auto_map:
        return
    import transformers

    native = set(dir(transformers))
    for role, reference in auto_map.items():
        class_name = str(reference[0] if isinstance(reference, list) else reference).rsplit(".", 1)[-1]
        if role in ("AutoModel", "AutoConfig") and class_name not in native:
            raise ModelError(
                f"{path} needs code of its own ({role}: {reference}), which is never run; use a model whose "
                "architecture is part of transformers (for jina-embeddings-v3: jinaai/jina-embeddings-v3-hf)"
            )


def _read_modules(path: Path) -> dict[str, str]:
    """Module name -> its folder relative to `path`, in order; a plain transformers folder has only `Transformer`."""
    try:
        document = json.loads((path / "modules.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"Transformer": ""}
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path / 'modules.json'} is damaged or cannot be read: {error}") from error
    modules = {str(entry["type"]).rsplit(".", 1)[-1]: str(entry["path"]) for entry in document}
    unknown = [name for name in modules if name not in KNOWN_MODULES]
    if unknown or modules.get("Transformer") != "":
        raise ModelError(
            f"{path / 'modules.json'} lists {', '.join(modules)}; supported are a Transformer in the folder itself, "
            "Pooling and Normalize"
        )
    return modules


def _read_pooling(path: Path, modules: Mapping[str, str], spec: models.BaseModel | None) -> models.Pooling:
    if "Pooling" not in modules:
        return spec.pooling if spec else "mean"
    name = f"{modules['Pooling']}/config.json"
    config = read_model_json(path, name)
    found = config.get("pooling_mode")
    if found is None:
        found = [mode for key, mode in POOLING_BOOLEANS.items() if config.get(key)] or ["mean"]
    modes = [found] if isinstance(found, str) else list(found)
    if len(modes) != 1 or modes[0] not in POOLING_NAMES:
        raise ModelError(
            f"{path / name} asks for pooling {'+'.join(map(str, modes))}; "
            f"supported is one of {', '.join(POOLING_NAMES)}"
        )
    if config.get("include_prompt") is False:
        raise ModelError(
            f"{path / name} leaves the prompt out of pooling (include_prompt false); that is not supported"
        )
    return POOLING_NAMES[modes[0]]


def _read_prompts(path: Path, spec: models.BaseModel | None) -> tuple[str, str]:
    """(query prompt, passage prompt): the folder's own, else the catalogue's."""
    prompts = read_model_json(path, "config_sentence_transformers.json", required=False).get("prompts") or {}
    query = next((prompts[name] for name in QUERY_PROMPT_NAMES if prompts.get(name)), None)
    passage = next((prompts[name] for name in PASSAGE_PROMPT_NAMES if prompts.get(name)), None)
    if spec is not None:  # the catalogue knows best: a task prompt for web search does not suit code
        return spec.query_prompt, spec.passage_prompt
    return query or "", passage or ""


def _position_limit(config: Mapping[str, Any], model_type: str, spec: models.BaseModel | None) -> int:
    limit = int(config.get("max_position_embeddings") or (spec.position_limit if spec else 512))
    if model_type in RESERVED_POSITIONS:
        limit -= int(config.get("pad_token_id") or 0) + 1
    if model_type == "jina_embeddings_v3":
        limit -= 2  # the table of the original is two longer than its rotary positions
    return limit


def _is_causal(config: Mapping[str, Any], spec: models.BaseModel | None) -> bool:
    if spec is not None:
        return spec.causal
    if "is_causal" in config:
        return bool(config["is_causal"])
    return is_decoder(str(config.get("model_type", "")))


def _appends_end_token(path: Path, model_type: str, pooling: models.Pooling, spec: models.BaseModel | None) -> bool:
    if spec is not None:
        return spec.appends_end_token
    tokenizer = read_model_json(path, "tokenizer_config.json", required=False)
    return pooling == "last" and (bool(tokenizer.get("add_eos_token")) or model_type == "qwen2")


def is_decoder(model_type: str) -> bool:
    """Whether attention looks back only, unless the configuration says otherwise."""
    return model_type.split("_")[0] in ("qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gemma3", "phi3")
