"""A name becomes a folder, or an error that says where it was looked for."""

import shutil
from pathlib import Path

import pytest

from embed_assets import models
from embed_assets.encoder import resolve as resolving
from embed_assets.encoder.layout import ModelError
from embed_assets.encoder.resolve import ModelNotFoundError, resolve
from tests.tiny_models import build


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache is a folder of this test, and the hub is not asked."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return cache


def put_into_cache(cache: Path, repository: str, model: Path) -> str:
    revision = "a" * 40
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    shutil.copytree(model, folder / "snapshots" / revision)
    return revision


def test_a_directory(tmp_path: Path) -> None:
    path = build("qodo", tmp_path)
    found = resolve(str(path))
    assert (found.path, found.origin, found.alias, found.spec) == (path, "directory", "qodo", models.CATALOGUE["qodo"])


@pytest.mark.parametrize("name", ["minilm", "sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"])
def test_the_packaged_weights(name: str) -> None:
    found = resolve(name)
    assert (found.origin, found.alias) == ("package", "minilm")
    assert (found.path / "model.safetensors").is_file()


def test_packaged_weights_that_are_not_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "file_sha256", lambda path: "0" * 64)
    with pytest.raises(ModelError, match="its sha256 is 0000"):
        resolve("minilm")


@pytest.mark.parametrize("name", ["jina-v3", "jinaai/jina-embeddings-v3", "jinaai/jina-embeddings-v3-hf"])
def test_the_cache_and_the_alias_of_the_original_repository(name: str, tmp_path: Path, empty_cache: Path) -> None:
    revision = put_into_cache(empty_cache, "jinaai/jina-embeddings-v3-hf", build("jina-v3", tmp_path))
    found = resolve(name)
    assert (found.origin, found.alias, found.revision) == ("cache", "jina-v3", revision)


def test_a_model_outside_the_catalogue(tmp_path: Path, empty_cache: Path) -> None:
    put_into_cache(empty_cache, "someone/bert-for-code", build("minilm", tmp_path))
    found = resolve("someone/bert-for-code")
    assert (found.origin, found.alias, found.spec) == ("cache", "bert-for-code", None)


def test_another_architecture_than_the_catalogue_says(tmp_path: Path, empty_cache: Path) -> None:
    put_into_cache(empty_cache, "Qodo/Qodo-Embed-1-1.5B", build("minilm", tmp_path))
    with pytest.raises(ModelError, match=r"holds a model of type 'bert'; qodo .* is a 'qwen2'"):
        resolve("qodo")


def test_a_cache_without_weights_is_no_model(tmp_path: Path, empty_cache: Path) -> None:
    model = build("qodo", tmp_path)
    (model / "model.safetensors").unlink()
    put_into_cache(empty_cache, "Qodo/Qodo-Embed-1-1.5B", model)
    with pytest.raises(ModelNotFoundError):
        resolve("qodo")


def test_a_model_that_is_nowhere_says_where_it_was_looked_for() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("e5-large")
    for part in ("'e5-large'", "cache", "hub intfloat/multilingual-e5-large", "copy the model's folder"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["nonsense", "./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_name_that_can_be_nothing(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="neither a folder, nor one of minilm, qodo, jina-v3, e5-large"):
        resolve(name)
