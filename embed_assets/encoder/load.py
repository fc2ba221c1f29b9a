"""A model folder to an Encoder: safetensors only, no code of the model's own, missing weights are an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.layout import Layout, ModelError, read_layout
from embed_assets.encoder.tokens import find_affixes

if TYPE_CHECKING:
    import torch

WITHOUT_POOLER = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "jina_embeddings_v3")
"""Architectures with a pooling head that no embedding reads."""


def load_encoder(
    path: Path,
    *,
    device: str = "auto",
    max_tokens: int | None = None,
    threads: int | None = None,
    precision: str | None = None,
) -> Encoder:
    """Loads the model folder at `path`.

    Args:
        device: auto (CUDA, then Metal, then CPU), cpu, cuda, cuda:N or mps.
        max_tokens: longest input; the folder's or the catalogue's value when not given.
        threads: CPU threads of this process; unchanged when not given.
        precision: float32, bfloat16 or float16; bfloat16 on CUDA and float32 elsewhere when not given.

    Raises:
        ModelError: the folder is incomplete or of a kind that is not supported, or the device is not there.
    """
    import torch

    layout = read_layout(path)
    limit = layout.max_tokens if max_tokens is None else max_tokens
    if not 0 < limit <= layout.position_limit:
        raise ModelError(f"max_tokens is {limit}; {path} has positions for 1 to {layout.position_limit} tokens")
    if threads is not None:
        torch.set_num_threads(threads)
    target = choose_device(device)
    dtype = getattr(torch, precision or ("bfloat16" if target.type == "cuda" else "float32"))
    tokenizer = load_tokenizer(path)
    affixes = find_affixes(tokenizer, end_token=layout.appends_end_token)
    if limit <= len(affixes.prefix) + len(affixes.suffix):
        raise ModelError(
            f"max_tokens is {limit}; the special tokens alone take {len(affixes.prefix) + len(affixes.suffix)}"
        )
    model = _load_transformer(layout, dtype).to(target).eval()
    return Encoder(
        path=path,
        model=model,
        tokenizer=tokenizer,
        affixes=affixes,
        pooling=layout.pooling,
        query_prompt=layout.query_prompt,
        passage_prompt=layout.passage_prompt,
        max_tokens=limit,
        dimension=int(model.config.hidden_size),
        causal=layout.causal,
        spec=layout.spec,
    )


def choose_device(name: str) -> "torch.device":
    """The device called `name`; `auto` takes the fastest there is.

    Raises:
        ModelError: this machine, or this build of torch, does not have it.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = name.split(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(kind, False):
        available = ", ".join(key for key, value in there.items() if value)
        raise ModelError(f"device {name!r} is not there for torch {torch.__version__}; available: {available}")
    return torch.device(name)


def load_tokenizer(path: Path) -> Any:
    """The fast tokenizer of a model folder, with the padding and truncation that its file may prescribe switched off.

    Raises:
        ModelError: its files are missing or damaged.
    """
    from transformers import AutoTokenizer

    if not any(
        (path / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")
    ):
        raise ModelError(f"{path} has no tokenizer: tokenizer.json is missing")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the tokenizer of {path} cannot be read: {error}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer of {path} has no fast version: tokenizer.json is missing")
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without its progress bars, and without its remarks on weights that are left out on purpose."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _load_transformer(layout: Layout, dtype: "torch.dtype") -> Any:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(str(layout.path), local_files_only=True, trust_remote_code=False)
    config.is_causal = layout.causal
    extra = {"add_pooling_layer": False} if layout.model_type in WITHOUT_POOLER else {}
    try:
        with quiet_transformers():
            model, report = AutoModel.from_pretrained(
                str(layout.path),
                config=config,
                dtype=dtype,
                attn_implementation="sdpa",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **extra,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"the weights of {layout.path} cannot be loaded: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{layout.path} lacks {len(missing)} weights of a {layout.model_type} ({', '.join(missing[:3])} ...); "
            "it is damaged, or of another architecture than it says"
        )
    _pin_attention_direction(model, layout.causal)
    return model


def _pin_attention_direction(model: Any, causal: bool) -> None:
    """The mask follows the configuration, but attention without a mask follows each layer's own flag."""
    for module in model.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = causal
