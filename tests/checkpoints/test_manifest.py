"""Whatever happens to a checkpoint's files, verification names it."""

import json
from pathlib import Path

import pytest

from embed_assets.checkpoints.manifest import CheckpointCorruptError, verify, write_manifest


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "first"
    (folder / "adapter").mkdir(parents=True)
    (folder / "model.safetensors").write_text("weights")
    (folder / "adapter" / "weights").write_text("adapter")
    write_manifest(folder, checkpoint_id="first", model_digest="m", report_digest="r")
    return folder


def test_an_untouched_checkpoint_passes(checkpoint: Path) -> None:
    manifest = verify(checkpoint)
    assert set(manifest.files) == {"model.safetensors", "adapter/weights"}
    assert (manifest.checkpoint_id, manifest.model_digest, manifest.report_digest) == ("first", "m", "r")


def test_it_passes_through_the_pointer_too(checkpoint: Path) -> None:
    link = checkpoint.parent / "latest"
    link.symlink_to("first")
    assert verify(link).checkpoint_id == "first"


def change(folder: Path) -> None:
    (folder / "model.safetensors").write_text("weighty")


def remove(folder: Path) -> None:
    (folder / "adapter" / "weights").unlink()


def add(folder: Path) -> None:
    (folder / "adapter" / "extra.py").write_text("import os")


def link(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere")


def link_folder(folder: Path) -> None:
    (folder / "adapter").rename(folder.parent / "elsewhere")
    (folder / "adapter").symlink_to(folder.parent / "elsewhere")


def cut_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:50])


def other_format(folder: Path) -> None:
    document = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**document, "format": 2}))


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def list_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2]")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (change, "model.safetensors was changed"),
        (remove, "adapter/weights is missing"),
        (add, "adapter/extra.py is not in the manifest"),
        (link, "symbolic link, model.safetensors"),
        (link_folder, "symbolic link, adapter"),
        (cut_manifest, "manifest.json"),
        (other_format, "format 2"),
        (no_manifest, "manifest.json does not exist"),
        (list_manifest, "no usable manifest.json"),
    ],
)
def test_damage_is_named(checkpoint: Path, damage, named: str) -> None:  # type: ignore[no-untyped-def]
    damage(checkpoint)
    with pytest.raises(CheckpointCorruptError, match=named):
        verify(checkpoint)


def test_a_renamed_checkpoint_is_refused(checkpoint: Path) -> None:
    checkpoint.rename(checkpoint.parent / "second")
    with pytest.raises(CheckpointCorruptError, match="carries the manifest of first"):
        verify(checkpoint.parent / "second")
