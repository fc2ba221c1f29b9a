"""The loop learns, is deterministic, goes on after an interruption with the same result, and stops when it must."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embed_assets.encoder import flat_encode
from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.load import load_encoder
from embed_assets.training import loop
from embed_assets.training.adapter import adapter_state, merged_encoder, save_adapter, scale_adapter
from embed_assets.training.curve import StepRecord
from embed_assets.training.errors import TrainingError
from embed_assets.training.loop import learning_rate_at, train
from embed_assets.training.memory import MemoryPlan
from embed_assets.training.ranks import Ranks
from embed_assets.training.step import loss_and_gradients
from embed_assets.training.validation import ValidationSet, validation_mrr
from tests.tiny_models import BUILDERS
from tests.training.made_pairs import ONE_GO, tiny_data, tiny_recipe


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("alias", sorted(BUILDERS))
def test_each_architecture_learns_merges_and_serves_what_it_learnt(alias: str, tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path, alias)
    encoder = load_encoder(path, device="cpu")
    before = encoder.encode_rows(data.passage_tokens)
    result = train(encoder, data, tiny_recipe(alias, epochs=6), plan=ONE_GO, precision="float32")
    losses = [record.loss for record in result.curve]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    scale_adapter(encoder.model, 0.75)
    trained = encoder.encode_rows(data.passage_tokens)
    save_adapter(result.adapted, tmp_path / "adapter")
    merged = merged_encoder(path, tmp_path / "adapter", max_tokens=encoder.max_tokens)
    assert np.abs(merged.encode_rows(data.passage_tokens) - trained).max() < 1e-4
    assert np.abs(trained - before).max() > 0.05


def test_the_same_inputs_give_the_same_adapter_bit_for_bit(tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path)
    states = []
    for seed in (1, 1, 2):
        encoder = load_encoder(path, device="cpu")
        train(encoder, data, tiny_recipe(seed=seed), plan=ONE_GO)
        states.append(adapter_state(encoder.model))
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


class PowerCutError(Exception):
    """Stands for a power cut."""


@pytest.mark.parametrize("cut_at", [1, 3, 5, 7])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    cut_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1.0)
    path, data = tiny_data(tmp_path)
    validation = ValidationSet(
        query_tokens=data.query_tokens, passage_tokens=data.passage_tokens[:30], relevant=np.eye(30, dtype=bool)
    )
    arguments: dict[str, Any] = {"plan": ONE_GO, "validation": validation, "run": "digest"}
    whole = load_encoder(path, device="cpu")
    uninterrupted = train(whole, data, tiny_recipe(), **arguments)

    def cut(record: StepRecord, steps: int) -> None:
        if record.step == cut_at + 1:
            raise PowerCutError

    file = tmp_path / "progress.safetensors"
    with pytest.raises(PowerCutError):
        train(load_encoder(path, device="cpu"), data, tiny_recipe(), observe=cut, progress_file=file, **arguments)
    resumed = load_encoder(path, device="cpu")
    steps: list[int] = []
    result = train(
        resumed,
        data,
        tiny_recipe(),
        progress_file=file,
        observe=lambda record, _: steps.append(record.step),
        **arguments,
    )
    assert steps[0] == cut_at + 1
    assert [record.loss for record in result.curve] == [record.loss for record in uninterrupted.curve]
    assert (result.validation_before, result.validation_after, result.best_epoch) == (
        uninterrupted.validation_before, uninterrupted.validation_after, uninterrupted.best_epoch,
    )  # fmt: skip
    assert same(adapter_state(resumed.model), adapter_state(whole.model))


def test_progress_of_another_run_is_left_alone_and_a_damaged_one_named(tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path)
    file = tmp_path / "progress.safetensors"
    file.write_bytes(b"not tensors")
    with pytest.raises(TrainingError, match="is damaged"):
        train(load_encoder(path, device="cpu"), data, tiny_recipe(), plan=ONE_GO, progress_file=file, run="a")


@pytest.mark.parametrize(("last", "kept"), [(0.4, 2), (0.83, 3)])
def test_the_last_pass_is_kept_unless_an_earlier_one_is_clearly_better(
    last: float, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = tiny_data(tmp_path)
    figures = iter([0.1, 0.5, 0.9, last])
    states: list[dict[str, torch.Tensor]] = []

    def measured(encoder: Encoder, validation: ValidationSet) -> float:
        states.append(adapter_state(encoder.model))
        return next(figures)

    monkeypatch.setattr(loop, "validation_mrr", measured)
    encoder = load_encoder(path, device="cpu")
    validation = ValidationSet(query_tokens=[[1]] * 25, passage_tokens=[], relevant=np.zeros((25, 0), dtype=bool))
    assert validation.tolerance == pytest.approx(0.08)
    result = train(encoder, data, tiny_recipe(epochs=3), plan=ONE_GO, validation=validation)
    figure = {2: 0.9, 3: last}[kept]
    assert (result.validation_before, result.validation_after, result.best_epoch) == (0.1, figure, kept)
    assert same(adapter_state(encoder.model), states[kept])
    assert not same(states[2], states[3])


def test_validation_by_hand(tmp_path: Path) -> None:
    """Queries that equal their passage rank first; one whose answer is another text does not."""
    path, data = tiny_data(tmp_path)
    encoder = load_encoder(path, device="cpu")
    texts = data.passage_tokens[:12]
    right = ValidationSet(query_tokens=texts, passage_tokens=texts, relevant=np.eye(12, dtype=bool))
    assert validation_mrr(encoder, right) == 1.0
    assert encoder.model not in flat_encode._stacks  # steps have the memory
    wrong = np.eye(12, dtype=bool)
    wrong[0] = np.roll(wrong[0], 1)
    assert validation_mrr(encoder, dataclasses.replace(right, relevant=wrong)) < 1.0


def test_warm_up_and_decay() -> None:
    recipe = tiny_recipe(learning_rate=1.0, warmup_ratio=0.2)
    rates = [learning_rate_at(step, 10, recipe) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_a_target_that_is_not_there(tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path)
    with pytest.raises(TrainingError, match="LoRA target q_proj is no linear layer of BertModel; it has dense, key"):
        train(load_encoder(path, device="cpu"), data, tiny_recipe(lora_targets=["q_proj"]), plan=ONE_GO)


def test_a_loss_that_is_no_number(tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path)
    encoder = load_encoder(path, device="cpu")
    with torch.no_grad():
        next(encoder.model.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="step 1: the loss is nan"):
        train(encoder, data, tiny_recipe(), plan=ONE_GO)


def test_an_exploding_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([2.0] * 20 + [9.0] * 40)
    monkeypatch.setattr(loop, "_loss_with_one_retry", lambda *args: (torch.tensor(next(losses)), ONE_GO))
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *args: torch.tensor(1.0))
    path, data = tiny_data(tmp_path)
    with pytest.raises(TrainingError, match=r"the loss explodes, from 2\.00 at the start to"):
        train(load_encoder(path, device="cpu"), data, tiny_recipe(epochs=12), plan=ONE_GO)


def test_out_of_memory_is_met_once_with_a_smaller_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = tiny_data(tmp_path)
    calm = load_encoder(path, device="cpu")
    train(calm, data, tiny_recipe(), plan=ONE_GO, precision="float32")
    plans: list[MemoryPlan] = []

    def short_of_memory(*args: Any, **kwargs: Any) -> torch.Tensor:
        plans.append(kwargs["plan"])
        if len(plans) == 3:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return loss_and_gradients(*args, **kwargs)

    monkeypatch.setattr("embed_assets.training.loop.loss_and_gradients", short_of_memory)
    encoder = load_encoder(path, device="cpu")
    result = train(encoder, data, tiny_recipe(), plan=ONE_GO, precision="float32")
    assert result.plan.cached_gradients
    assert result.plan.retried
    assert not ONE_GO.retried
    assert plans[-1] == result.plan
    rows = data.passage_tokens
    assert (encoder.encode_rows(rows) * calm.encode_rows(rows)).sum(axis=1).min() > 0.999

    monkeypatch.setattr(
        "embed_assets.training.loop.loss_and_gradients",
        lambda *a, **k: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")),
    )
    with pytest.raises(
        TrainingError, match=r"out of memory with micro-batches of 256 tokens too; shorten model\.max_tokens"
    ):
        train(load_encoder(path, device="cpu"), data, tiny_recipe(), plan=ONE_GO)


@pytest.mark.parametrize(
    ("plan", "ranks", "message"),
    [
        (dataclasses.replace(ONE_GO, retried=True), Ranks(), "with micro-batches of 256 tokens too"),
        (ONE_GO, Ranks(0, 2), r"in one of 2 processes, .* lower training\.batch_size, or train on one GPU"),
    ],
    ids=["a later step after the retry", "several processes"],
)
def test_out_of_memory_without_a_retry_left_says_what_to_do(
    plan: MemoryPlan, ranks: Ranks, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = tiny_data(tmp_path)
    tried: list[MemoryPlan] = []

    def short_of_memory(*args: Any, **kwargs: Any) -> torch.Tensor:
        tried.append(kwargs["plan"])
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(loop, "loss_and_gradients", short_of_memory)
    with pytest.raises(TrainingError, match=message):
        train(load_encoder(path, device="cpu"), data, tiny_recipe(), plan=plan, ranks=ranks)
    assert tried == [plan]
