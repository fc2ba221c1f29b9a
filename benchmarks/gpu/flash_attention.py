"""PyTorch's own FlashAttention-2 kernel behind the name of the package flash-attn, for the peer's padding-free path.

sentence-transformers unpads only when flash-attn is installed, which has no wheels for many builds of torch. The kernel
is the same, built into torch, so this is the strongest peer and an honest one. It writes a package of that name into a
folder, for a process that puts the folder on its path.
"""

from pathlib import Path

_MODULE = '''
import torch
from torch.nn.attention.varlen import varlen_attn

__version__ = "2.8.3"


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
                           softmax_scale=None, causal=False, **unused):
    """Attention dropout is skipped: torch's kernel has none, which only makes the peer faster."""
    import inspect
    grouped = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
    return varlen_attn(q, k, v, cu_seqlens_q, cu_seqlens_k, int(max_seqlen_q), int(max_seqlen_k),
                       scale=softmax_scale, window_size=(-1, 0) if causal else (-1, -1), **grouped)


def flash_attn_func(*arguments, **options):
    raise NotImplementedError("only the padding-free path is measured")


flash_attn_with_kvcache = flash_attn_func
'''
_PADDING = """
def pad_input(*arguments, **options):
    raise NotImplementedError("only the padding-free path is measured")


unpad_input = pad_input
"""
_METADATA = "Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n"


def write_package(folder: Path) -> Path:
    """Writes the package and its metadata below `folder`."""
    module = folder / "flash_attn"
    metadata = folder / "flash_attn-2.8.3.dist-info"
    for part in (module, metadata):
        part.mkdir(parents=True, exist_ok=True)
    (module / "__init__.py").write_text(_MODULE)
    (module / "bert_padding.py").write_text(_PADDING)
    (metadata / "METADATA").write_text(_METADATA)
    (metadata / "top_level.txt").write_text("flash_attn\n")
    (metadata / "RECORD").write_text("flash_attn/__init__.py,,\nflash_attn/bert_padding.py,,\n")
    return folder
