"""The folder of a candidate to start from, as far as one is read without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from embed_assets.files import write_json
from embed_assets.records import query_digest


def write_start(folder: Path, *, learnt: Sequence[str] = (), learnt_until: Mapping[str, int]) -> Path:
    """`learnt` are the queries that it was trained on."""
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_text(f"adapter of {folder.name}", encoding="utf-8")
    config = {"r": 16, "lora_alpha": 32, "target_modules": ["dense", "key", "query", "value"]}
    write_json(folder / "adapter" / "adapter_config.json", config)
    write_json(
        folder / "training.json",
        {
            "candidate_id": folder.name, "base_model": "minilm", "base_name": "minilm", "base_digest": "f" * 40,
            "recipe": {"delta_scale": 0.75}, "query_digests": [query_digest(text) for text in learnt],
            "learnt_until": dict(learnt_until),
        },
    )  # fmt: skip
    return folder
