"""The loop on a GPU: every path learns the same, memory limits are kept, running out is met once and said."""

import gc
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu.ours import read_rows, recipe_for
from benchmarks.gpu.workload import SHAPES, Shape, save_checkpoint, shrunk, write_pairs
from embed_assets.encoder.load import load_encoder
from embed_assets.settings import Settings
from embed_assets.training import loop
from embed_assets.training.adapter import adapter_state, merged_encoder, save_adapter
from embed_assets.training.curve import read_curve
from embed_assets.training.loop import TrainingResult, train
from embed_assets.training.memory import MemoryPlan
from embed_assets.training.standalone import train_to_directory

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


def trained(
    shape: Shape, folder: Path, *, path: str = "auto", batch: int = 16, rows: int = 64, epochs: int = 6,
    plan: MemoryPlan | None = None, tiny: bool = True, **options: object,
) -> TrainingResult:  # fmt: skip
    checkpoint = save_checkpoint(shape, folder / shape.model_type, "cpu")
    encoder = load_encoder(checkpoint, device="cuda", precision="float32" if path == "padded" else "bfloat16")
    data = read_rows(encoder, folder, shape, rows, 1, tiny=tiny)
    recipe = recipe_for(shape, rows=rows, batch=batch, epochs=epochs, negatives=1, rate=2e-3)
    return train(encoder, data, recipe, path=path, plan=plan, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("alias", sorted(SHAPES))
def test_all_paths_learn_the_same(alias: str, tmp_path: Path) -> None:
    shape = shrunk(SHAPES[alias], 128)
    results = {path: trained(shape, tmp_path, path=path) for path in ("padded", "packed", "auto")}
    assert results["auto"].path == "fused"
    losses = {path: [record.loss for record in result.curve] for path, result in results.items()}
    assert all(len(curve) == 24 for curve in losses.values())
    assert np.mean(losses["padded"][-4:]) < 0.98 * np.mean(losses["padded"][:4])
    for path in ("packed", "auto"):
        assert np.mean(losses[path]) == pytest.approx(np.mean(losses["padded"]), rel=0.02)
        assert losses[path][0] == pytest.approx(losses["padded"][0], rel=0.02)
    last = results["auto"].curve[-1]
    assert [record.step for record in results["auto"].curve] == list(range(1, 25))
    assert last.gradient_norm > 0
    assert last.memory_bytes > 0
    assert 0 <= last.padding_share < 0.9
    assert last.learning_rate < results["auto"].curve[5].learning_rate


def test_what_was_learnt_on_a_gpu_is_what_is_merged(tmp_path: Path) -> None:
    shape = shrunk(SHAPES["qodo"], 128)
    result = trained(shape, tmp_path)
    base = tmp_path / shape.model_type
    save_adapter(result.adapted, tmp_path / "adapter")
    merged = merged_encoder(base, tmp_path / "adapter", max_tokens=510)
    encoder = load_encoder(base, device="cuda")
    rows = read_rows(encoder, tmp_path, shape, 64, 1, tiny=True).passage_tokens
    from embed_assets.encoder.paths import embed_tokens

    class Trained:
        model, device, pooling = result.adapted.get_base_model(), encoder.device, encoder.pooling

    with torch.no_grad():
        found = embed_tokens(Trained(), rows, "fused").cpu().numpy()  # type: ignore[arg-type]
    assert (found * merged.encode_rows(rows)).sum(1).min() > 0.999
    assert (encoder.encode_rows(rows) * merged.encode_rows(rows)).sum(1).min() < 0.999


def test_a_whole_job_from_the_pairs_file_to_the_candidate(tmp_path: Path) -> None:
    shape = shrunk(SHAPES["minilm"], 128)
    base = save_checkpoint(shape, tmp_path / "base", "cpu")
    texts = write_pairs(tmp_path / "pairs.jsonl", 64, 4096, negatives=1, tiny=True)
    dials = {"epochs": 6, "batch_size": 16, "learning_rate": 2e-3, "device": "cuda"}
    settings = Settings.model_validate({"model": {"name": str(base)}, "training": dials})
    summary = train_to_directory(settings, tmp_path / "pairs.jsonl", tmp_path / "candidate")
    assert (summary["path"], summary["precision"], summary["device"]) == ("fused", "bfloat16", "cuda:0")
    assert "in one go" in summary["memory_plan"]
    curve = read_curve(tmp_path / "candidate" / "curve.jsonl")
    assert len(curve) == 24
    if "H100" in torch.cuda.get_device_name():
        assert all(record.mfu is not None and 0 < record.mfu < 1 for record in curve)
    assert summary["final_loss"] < 0.98 * summary["first_loss"]
    served = load_encoder(tmp_path / "candidate" / "model", device="cuda")
    before = load_encoder(base, device="cuda")
    cosines = (served.encode(texts[1]) * before.encode(texts[1])).sum(1)
    assert 0.5 < cosines.min() < 0.9999


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1.0)
    shape = shrunk(SHAPES["qodo"], 128)
    whole = trained(shape, tmp_path, run="digest")
    file = tmp_path / "progress.safetensors"

    class PowerCutError(Exception): ...

    def cut(record: object, steps: int) -> None:
        if record.step == 9:  # type: ignore[attr-defined]
            raise PowerCutError

    with pytest.raises(PowerCutError):
        trained(shape, tmp_path, run="digest", observe=cut, progress_file=file)
    resumed = trained(shape, tmp_path, run="digest", progress_file=file)
    assert len(resumed.curve) == 24
    assert [record.loss for record in resumed.curve] == pytest.approx([record.loss for record in whole.curve], rel=0.01)
    first, second = (adapter_state(result.adapted.get_base_model()) for result in (whole, resumed))
    joined = [torch.cat([state[name].flatten() for name in sorted(state)]) for state in (first, second)]
    assert torch.nn.functional.cosine_similarity(joined[0], joined[1], dim=0) > 0.999


def limit_to(gib: float) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((gib * 2**30 + torch.cuda.memory_allocated()) / total)


@pytest.fixture
def unlimited() -> "object":
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("unlimited")
def test_a_limit_is_kept_by_plan_and_an_unsound_plan_is_retried_smaller(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shape = shrunk(SHAPES["qodo"], 512)
    arguments = {"batch": 128, "rows": 128, "epochs": 2, "tiny": False}
    result = trained(shape, tmp_path, **arguments)  # type: ignore[arg-type]
    assert "in one go" in result.plan.reason
    losses = [record.loss for record in result.curve]
    for gib, said in ((5.5, "recompute"), (2.0, "gradients cached")):
        del result
        limit_to(gib)
        with caplog.at_level(logging.WARNING):
            result = trained(shape, tmp_path, **arguments)  # type: ignore[arg-type]
        assert said in result.plan.reason, result.plan.reason
        assert not [record for record in caplog.records if "retried" in record.message]
        assert [record.loss for record in result.curve] == pytest.approx(losses, rel=0.01)
        torch.cuda.set_per_process_memory_fraction(1.0)

    del result
    limit_to(2.0)
    unsound = MemoryPlan(micro_batch_tokens=8192, cached_gradients=False, activation_budget=1 << 40, reason="too much")
    with caplog.at_level(logging.WARNING):
        result = trained(shape, tmp_path, plan=unsound, **arguments)  # type: ignore[arg-type]
    assert result.plan.reason.startswith("retried smaller")
    assert "retried smaller" in caplog.text
    assert [record.loss for record in result.curve] == pytest.approx(losses, rel=0.01)
