"""A saved model gives the same vectors, here and in sentence-transformers, and has the layout others read."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from embed_assets.encoder.digest import model_digest, servable_files
from embed_assets.encoder.layout import ModelError
from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.save import save_model
from tests.tiny_models import BUILDERS, CORPUS, build

TEXTS = [*CORPUS, "x", "retry the webhook " * 60]


@pytest.fixture(params=sorted(BUILDERS))
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[np.ndarray, str, Path]:
    """Vectors before, the passage prompt, and the folder that was written."""
    encoder = load_encoder(build(request.param, tmp_path), device="cpu")
    before = encoder.encode(TEXTS)
    target = tmp_path / "saved"
    target.mkdir()
    save_model(encoder, target)
    assert np.array_equal(before, encoder.encode(TEXTS))  # saving changes nothing
    return before, encoder.passage_prompt, target


def test_vectors_are_equal_after_reload(saved: tuple[np.ndarray, str, Path]) -> None:
    before, prompt, path = saved
    reloaded = load_encoder(path, device="cpu")
    assert reloaded.spec is None  # all it needs is in its own files
    assert reloaded.passage_prompt == prompt
    assert np.abs(reloaded.encode(TEXTS) - before).max() < 1e-6


def test_sentence_transformers_gives_the_same_vectors(saved: tuple[np.ndarray, str, Path]) -> None:
    before, prompt, path = saved
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(path), device="cpu")
        vectors = model.encode(TEXTS, prompt=prompt or None)
    assert (vectors * before).sum(axis=1).min() > 0.99999
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5


def test_the_layout_is_the_one_that_every_consumer_reads(saved: tuple[np.ndarray, str, Path]) -> None:
    _, _, path = saved
    modules = json.loads((path / "modules.json").read_text())
    assert [module["type"] for module in modules] == [
        f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize")
    ]
    pooling = json.loads((path / "1_Pooling" / "config.json").read_text())
    assert sum(value is True for key, value in pooling.items() if key.startswith("pooling_mode_")) == 1
    config = json.loads((path / "config.json").read_text())
    if config["model_type"] in ("qwen2", "jina_embeddings_v3"):
        assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert "auto_map" not in config
    assert (path / "tokenizer.json").is_file()
    assert not list(path.glob("*.bin"))


def test_the_pooling_head_is_kept_for_those_who_look_for_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    source = build("minilm", tmp_path)
    target = tmp_path / "saved"
    target.mkdir()
    save_model(load_encoder(source, device="cpu"), target)
    before, after = load_file(source / "model.safetensors"), load_file(target / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_half_precision_is_close_and_bfloat16_refused(tmp_path: Path) -> None:
    encoder = load_encoder(build("minilm", tmp_path), device="cpu")
    target = tmp_path / "half"
    target.mkdir()
    save_model(encoder, target, precision="float16")
    vectors = load_encoder(target, device="cpu").encode(TEXTS)
    assert (vectors * encoder.encode(TEXTS)).sum(axis=1).min() > 0.9999
    with pytest.raises(ModelError, match="allowed: float32, float16"):
        save_model(encoder, target, precision="bfloat16")


def test_the_digest_covers_what_decides_vectors_and_nothing_else(tmp_path: Path) -> None:
    path = build("minilm", tmp_path)
    before = model_digest(path)
    (path / "README.md").write_text("hello")
    (path / "report.json").write_text("{}")
    (path / "golden.safetensors").write_bytes(b"x")
    assert model_digest(path) == before
    pooling = path / "1_Pooling" / "config.json"
    assert pooling in servable_files(path)
    pooling.write_text(pooling.read_text().replace("true", "false"))
    assert model_digest(path) != before
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="is no servable model"):
        model_digest(path)
