"""One step's gradients: cached, fused and shared by ranks, they are those of the plain joint batch."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.padded import padded_embed
from embed_assets.training.adapter import adapter_parameters, add_adapter
from embed_assets.training.data import Batch, make_batch
from embed_assets.training.lora import speed_up_adapter
from embed_assets.training.memory import MemoryPlan, activation_bytes_per_token, plan_memory
from embed_assets.training.ranks import Ranks
from embed_assets.training.step import batch_loss, loss_and_gradients, micro_batches
from tests.tiny_models import BUILDERS
from tests.training.made_pairs import ONE_GO, tiny_data, tiny_recipe
from tests.training.test_rehearsal import rehearsal_for

CACHED = MemoryPlan(micro_batch_tokens=48, cached_gradients=True, reason="for tests")


def adapted(path: Path, alias: str = "minilm") -> Encoder:
    """An encoder whose adapter does something: both halves are random."""
    encoder = load_encoder(path, device="cpu")
    add_adapter(encoder, tiny_recipe(alias))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter_parameters(encoder.model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return encoder


def gradients(encoder: Encoder, batch: Batch, plan: MemoryPlan, path: str = "padded") -> tuple[float, torch.Tensor]:
    encoder.model.zero_grad()
    loss = float(loss_and_gradients(encoder, batch, temperature=0.05, plan=plan, path=path, ranks=Ranks()))
    return loss, torch.cat([p.grad.flatten() for p in adapter_parameters(encoder.model).values() if p.grad is not None])


def plain(encoder: Encoder, batch: Batch) -> tuple[float, torch.Tensor]:
    """The reference: all texts in one padded pass, PEFT's own layers, torch's own backward pass."""
    encoder.model.zero_grad()
    loss = batch_loss(padded_embed(encoder, batch.tokens), batch, 0.05)
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), torch.cat(
        [p.grad.flatten() for p in adapter_parameters(encoder.model).values() if p.grad is not None]
    )


@pytest.mark.parametrize("alias", sorted(BUILDERS))
@pytest.mark.parametrize("plan", [ONE_GO, CACHED], ids=["one go", "cached"])
@pytest.mark.parametrize("fast", [False, True], ids=["peft", "fast"])
def test_gradients_are_those_of_one_plain_pass(alias: str, plan: MemoryPlan, fast: bool, tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path, alias)
    encoder = adapted(path, alias)
    batch = make_batch(data, np.arange(12))
    expected_loss, expected = plain(encoder, batch)
    if fast:
        assert speed_up_adapter(encoder.model) == (14 if alias == "qodo" else 12)
    loss, found = gradients(encoder, batch, plan)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert torch.linalg.vector_norm(found - expected) < 1e-4 * torch.linalg.vector_norm(expected)


@pytest.mark.parametrize("alias", [alias for alias in sorted(BUILDERS) if alias in ("minilm", "e5-large")])
@pytest.mark.parametrize("tokens", [48, 96, 10_000])
def test_cached_gradients_on_the_flat_path_are_exact(alias: str, tokens: int, tmp_path: Path) -> None:
    """Gao et al., 2021: micro-batches change neither the loss nor a gradient, only what is held at a time."""
    path, data = tiny_data(tmp_path, alias)
    encoder = adapted(path, alias)
    batch = make_batch(data, np.arange(12))
    expected_loss, expected = plain(encoder, batch)
    at_once_loss, at_once = gradients(encoder, batch, ONE_GO, "flat")
    plan = replace(CACHED, micro_batch_tokens=tokens)
    assert (len(micro_batches([len(row) for row in batch.tokens], plan, "flat")) > 1) == (tokens < 10_000)
    loss, found = gradients(encoder, batch, plan, "flat")
    assert loss == pytest.approx(at_once_loss, rel=1e-6)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert torch.linalg.vector_norm(found - at_once) < 1e-5 * torch.linalg.vector_norm(at_once)
    assert torch.linalg.vector_norm(found - expected) < 1e-4 * torch.linalg.vector_norm(expected)


def test_bfloat16_products_are_close(tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path)
    encoder = adapted(path)
    batch = make_batch(data, np.arange(12))
    expected_loss, expected = plain(encoder, batch)
    speed_up_adapter(encoder.model, bfloat16=True)
    loss, found = gradients(encoder, batch, ONE_GO)
    assert loss == pytest.approx(expected_loss, rel=0.05)
    assert torch.cosine_similarity(found, expected, dim=0) > 0.99


def test_the_plan_follows_the_memory(tmp_path: Path) -> None:
    encoder = adapted(tiny_data(tmp_path)[0])
    per_token = activation_bytes_per_token(encoder)
    roomy = plan_memory(encoder, step_tokens=10_000, free_bytes=per_token * 20_000)
    assert not roomy.cached_gradients
    tight = plan_memory(encoder, step_tokens=10_000, free_bytes=per_token * 1_000)
    assert tight.cached_gradients
    assert tight.micro_batch_tokens == 600
    assert "gradients cached, micro-batches of 600 tokens" in tight.reason
    assert tight.smaller().micro_batch_tokens == 300


def test_ranks_share_the_texts_evenly() -> None:
    lengths = [100, 90, 80, 70, 60, 50, 40]
    shares = [Ranks(rank, 3).share(lengths) for rank in range(3)]
    assert sorted(index for share in shares for index in share) == list(range(7))
    assert [sum(lengths[index] for index in share) for share in shares] == [190, 150, 150]


WORKER = """
import sys
import numpy as np, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.training.test_step import adapted, rehearsing
from tests.training.made_pairs import ONE_GO, tiny_data, tiny_recipe
from embed_assets.training.adapter import adapter_parameters
from embed_assets.training.data import make_batch
from embed_assets.training.loop import train
from embed_assets.training.adapter import adapter_state
from embed_assets.encoder.load import load_encoder
from embed_assets.training.memory import MemoryPlan
from embed_assets.training.ranks import join_ranks
from embed_assets.training.step import loss_and_gradients
from safetensors.torch import save_file

torch.set_num_threads(1)
folder = Path(sys.argv[1])
ranks = join_ranks("cpu")
assert ranks.count == 2
path, data = tiny_data(folder)
for cached in (False, True):
    encoder = adapted(path)
    plan = MemoryPlan(micro_batch_tokens=48, cached_gradients=cached, reason="")
    batch = rehearsing(path, make_batch(data, np.arange(12)))
    loss = loss_and_gradients(encoder, batch, temperature=0.05, plan=plan, path="padded", ranks=ranks)
    parameters = adapter_parameters(encoder.model)
    own = {n: (p.grad if p.grad is not None else torch.zeros_like(p)).clone() for n, p in parameters.items()}
    ranks.sum_gradients(parameters.values())
    joint = {n: p.grad for n, p in parameters.items()}
    assert any(not torch.equal(own[n], joint[n]) for n in own)
    saved = {n: t.contiguous() for n, t in joint.items()}
    save_file({**saved, "loss": loss}, folder / f"{cached}-{ranks.rank}")
encoder = load_encoder(path, device="cpu")
train(encoder, data, tiny_recipe(), plan=ONE_GO, ranks=ranks, precision="float32")
save_file(adapter_state(encoder.model), folder / f"trained-{ranks.rank}")
torch.distributed.destroy_process_group()
"""


def rehearsing(path: Path, batch: Batch) -> Batch:
    """`batch` with foreign docs beside it, which the ranks share with the rest."""
    return rehearsal_for(load_encoder(path, device="cpu"), rows=9).beside(batch, 0)


def test_two_ranks_have_the_loss_and_gradients_of_the_joint_batch(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from embed_assets.training.adapter import adapter_state
    from embed_assets.training.loop import train

    path, data = tiny_data(tmp_path)
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path), root],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]

    encoder = adapted(path)
    loss, expected = gradients(encoder, rehearsing(path, make_batch(data, np.arange(12))), ONE_GO)
    names = list(adapter_parameters(encoder.model))
    for cached in (False, True):
        for rank in (0, 1):
            found = load_file(tmp_path / f"{cached}-{rank}")
            assert float(found["loss"]) == pytest.approx(loss, rel=1e-5)
            joint = torch.cat([found[name].flatten() for name in names])
            assert torch.linalg.vector_norm(joint - expected) < 1e-4 * torch.linalg.vector_norm(expected)
    alone = load_encoder(path, device="cpu")
    train(alone, data, tiny_recipe(), plan=ONE_GO, precision="float32")
    first, second = (load_file(tmp_path / f"trained-{rank}") for rank in (0, 1))
    for name, tensor in adapter_state(alone.model).items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], tensor, atol=2e-3)
