"""What may be served: every way in which a checkpoint can be wrong is refused before it answers anything."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from embed_assets.checkpoints.manifest import CheckpointCorruptError, write_manifest
from embed_assets.encoder.digest import model_digest
from embed_assets.serving.generation import GenerationError, UnknownCheckpointError, load_base, load_checkpoint
from embed_assets.settings import Settings
from embed_assets.store import Store
from tests.serving.running_service import write_checkpoint, write_golden


def test_a_sound_checkpoint_is_loaded(settings: Settings, store: Store, checkpoints: list[str]) -> None:
    generation = load_checkpoint(store, settings, checkpoints[0])
    assert generation.model == f"e5-large@{checkpoints[0]}"
    assert generation.digest == model_digest(store.checkpoint(checkpoints[0]))
    assert generation.space_id == generation.encoder.space_id
    assert generation.path == store.checkpoint(checkpoints[0])
    assert generation.dimensions == (generation.dimension,)
    assert generation.space_id != load_base(settings).space_id


def test_rows_are_the_encoders_own(settings: Settings) -> None:
    generation = load_base(settings)
    texts = ["def f(): pass", "retry failed webhooks " * 100]
    for kind in ("query", "passage"):
        rows = generation.tokenise(texts, kind)
        assert len(rows[1]) > generation.max_tokens
        assert [rows[0], generation.cut(rows[1])] == list(generation.encoder.tokenise(texts, kind))


def test_a_changed_file_is_refused(settings: Settings, store: Store, checkpoints: list[str]) -> None:
    weights = store.checkpoint(checkpoints[0]) / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(CheckpointCorruptError, match=r"model\.safetensors was changed"):
        load_checkpoint(store, settings, checkpoints[0])


def test_golden_vectors_of_another_model_are_refused(
    settings: Settings, store: Store, tuned_models: list[Path]
) -> None:
    write_checkpoint(store, "odd", tuned_models[0], golden_noise=0.02)
    with pytest.raises(GenerationError, match=r"does not reproduce its golden vectors: cosine 0\.9"):
        load_checkpoint(store, settings, "odd")


@pytest.mark.parametrize("damage", ["missing", "no texts", "nan", "not a file of tensors"])
def test_unusable_golden_vectors_are_refused(
    settings: Settings, store: Store, tuned_models: list[Path], damage: str
) -> None:
    folder = store.checkpoint("odd")
    shutil.copytree(tuned_models[0], folder)
    golden = folder / "golden.safetensors"
    if damage == "no texts":
        save_file({"vectors": np.eye(3, dtype=np.float32)}, golden)
    elif damage == "nan":
        write_golden(folder, noise=np.nan)
    elif damage == "not a file of tensors":
        golden.write_bytes(b"no")
    write_manifest(folder, checkpoint_id="odd", model_digest=model_digest(folder), report_digest="none")
    with pytest.raises(GenerationError, match="golden vectors"):
        load_checkpoint(store, settings, "odd")


def test_a_manifest_of_another_model_is_refused(settings: Settings, store: Store, tuned_models: list[Path]) -> None:
    folder = store.checkpoint("odd")
    shutil.copytree(tuned_models[0], folder)
    write_golden(folder)
    write_manifest(folder, checkpoint_id="odd", model_digest="0" * 40, report_digest="none")
    with pytest.raises(GenerationError, match="promoted was 0000"):
        load_checkpoint(store, settings, "odd")


@pytest.mark.parametrize("name", ["../checkpoints/20261101-a", "/etc", "", ".hidden", "a/b", "http://x", "nothing"])
def test_an_id_never_leads_out_of_the_store(
    settings: Settings, store: Store, checkpoints: list[str], name: str
) -> None:
    with pytest.raises(UnknownCheckpointError):
        load_checkpoint(store, settings, name)


def test_a_link_instead_of_a_checkpoint_is_refused(settings: Settings, store: Store, tuned_models: list[Path]) -> None:
    write_checkpoint(store, "real", tuned_models[0])
    outside = store.root / "outside"
    store.checkpoint("real").rename(outside)
    store.checkpoint("real").symlink_to(outside)
    with pytest.raises(UnknownCheckpointError, match="symbolic link"):
        load_checkpoint(store, settings, "real")


def test_a_link_inside_a_checkpoint_is_refused(settings: Settings, store: Store, checkpoints: list[str]) -> None:
    weights = store.checkpoint(checkpoints[0]) / "model.safetensors"
    outside = store.root / "weights"
    weights.rename(outside)
    weights.symlink_to(outside)
    with pytest.raises(CheckpointCorruptError, match="symbolic link"):
        load_checkpoint(store, settings, checkpoints[0])
