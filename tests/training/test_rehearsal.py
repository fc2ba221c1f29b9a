"""Foreign docs beside each batch: drawn in turn, ranked as the base model ranks them, and then forgotten less."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.padded import padded_embed
from embed_assets.records import REHEARSAL_SCHEMA
from embed_assets.training import loop
from embed_assets.training.adapter import adapter_parameters, adapter_state, add_adapter
from embed_assets.training.curve import StepRecord
from embed_assets.training.data import make_batch
from embed_assets.training.loop import train
from embed_assets.training.loss import ranking_divergence
from embed_assets.training.memory import MemoryPlan, largest_step_tokens
from embed_assets.training.ranks import Ranks
from embed_assets.training.rehearsal import DRAWN, Rehearsal, prepare_rehearsal
from embed_assets.training.step import batch_loss, loss_and_gradients
from tests.training.made_pairs import ONE_GO, WORDS, tiny_data, tiny_recipe
from tests.training.test_loop import PowerCutError


def foreign(rows: int) -> pl.DataFrame:
    made = [
        {
            "query": f"{WORDS[row % 12]} of a {WORDS[row % 7]}",
            "text": f"lib.py f{row}\ndef f{row}({WORDS[row % 5]}): pass",
        }
        for row in range(rows)
    ]
    return pl.DataFrame(made, schema=dict(REHEARSAL_SCHEMA))


def rehearsal_for(encoder: Encoder, rows: int = 40, weight: float = 5.0) -> Rehearsal:
    prepared = prepare_rehearsal(encoder, foreign(rows), steps=100, batch_size=DRAWN, weight=weight, seed=1)
    assert prepared is not None
    return prepared


def divergence(encoder: Encoder, rehearsal: Rehearsal) -> float:
    """How far the ranking of everything that is rehearsed is from the base model's."""
    queries, passages = encoder.encode_rows(rehearsal.query_tokens), encoder.encode_rows(rehearsal.passage_tokens)
    return float(
        ranking_divergence(
            torch.tensor(queries @ passages.T), torch.tensor(rehearsal.queries @ rehearsal.passages.T), temperature=0.05
        )
    )


def test_every_row_has_its_turn(tmp_path: Path) -> None:
    encoder = load_encoder(tiny_data(tmp_path)[0], device="cpu")
    rehearsal = rehearsal_for(encoder, rows=DRAWN + 10)
    first, second = rehearsal.drawn(0), rehearsal.drawn(1)
    assert len(set(first.tolist())) == len(first) == DRAWN
    assert second.tolist()[:11] == [*range(DRAWN, DRAWN + 10), 0]
    few = rehearsal_for(encoder, rows=3)
    assert sorted(few.drawn(7).tolist()) == [0, 1, 2]


def test_only_what_is_drawn_is_embedded(tmp_path: Path) -> None:
    encoder = load_encoder(tiny_data(tmp_path)[0], device="cpu")
    prepared = prepare_rehearsal(encoder, foreign(200), steps=2, batch_size=8, weight=1.0, seed=1)
    assert prepared is not None and len(prepared.query_tokens) == 2 * 8, "as many as a batch has rows"
    assert prepare_rehearsal(encoder, foreign(1), steps=2, batch_size=8, weight=1.0, seed=1) is None


def test_a_fresh_adapter_has_forgotten_nothing(tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path)
    encoder = load_encoder(path, device="cpu")
    rehearsal = rehearsal_for(encoder)
    add_adapter(encoder, tiny_recipe())
    batch = make_batch(data, np.arange(12))
    alone = float(batch_loss(padded_embed(encoder, batch.tokens), batch, 0.05).detach())
    beside = rehearsal.beside(batch, 0)
    with_rehearsal = float(batch_loss(padded_embed(encoder, beside.tokens), beside, 0.05).detach())
    assert with_rehearsal == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("path_name", ["padded", "flat"])
def test_cached_gradients_carry_it_exactly(path_name: str, tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path)
    encoder = load_encoder(path, device="cpu")
    rehearsal = rehearsal_for(encoder)
    add_adapter(encoder, tiny_recipe())
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter_parameters(encoder.model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    batch = rehearsal.beside(make_batch(data, np.arange(12)), 0)

    def gradients(plan: MemoryPlan, path: str) -> torch.Tensor:
        encoder.model.zero_grad()
        loss_and_gradients(encoder, batch, temperature=0.05, plan=plan, path=path, ranks=Ranks())
        return torch.cat([p.grad.flatten() for p in adapter_parameters(encoder.model).values() if p.grad is not None])

    expected = gradients(ONE_GO, "padded")
    cached = MemoryPlan(micro_batch_tokens=48, cached_gradients=True, reason="for tests")
    found = gradients(cached, path_name)
    assert torch.linalg.vector_norm(found - expected) < 1e-4 * torch.linalg.vector_norm(expected)
    batch = replace(batch, rehearsed=None)
    assert torch.linalg.vector_norm(gradients(ONE_GO, "padded") - expected) > 0.01 * torch.linalg.vector_norm(expected)


def test_training_forgets_less_with_it(tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path, rows=60)
    recipe = tiny_recipe(epochs=4)
    left = {}
    for weight in (0.0, 5.0):
        encoder = load_encoder(path, device="cpu")
        rehearsal = rehearsal_for(encoder, weight=weight)
        result = train(encoder, data, recipe, rehearsal=rehearsal, path="padded", precision="float32")
        left[weight] = divergence(encoder, rehearsal)
        assert result.curve[-1].loss < result.curve[0].loss
    assert left[5.0] < 0.5 * left[0.0]


def test_an_interrupted_run_goes_on_with_the_draws_that_were_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1.0)
    path, data = tiny_data(tmp_path)
    file = tmp_path / "progress.safetensors"

    def run(observe: Callable[[StepRecord, int], None], progress_file: Path | None = None) -> dict[str, torch.Tensor]:
        encoder = load_encoder(path, device="cpu")
        rehearsal = prepare_rehearsal(encoder, foreign(30), steps=8, batch_size=4, weight=5.0, seed=1)
        arguments: dict[str, Any] = {"plan": ONE_GO, "path": "padded", "run": "digest", "rehearsal": rehearsal}
        train(encoder, data, tiny_recipe(), observe=observe, progress_file=progress_file, **arguments)
        return adapter_state(encoder.model)

    def cut(record: StepRecord, steps: int) -> None:
        if record.step == 4:
            raise PowerCutError

    seen: list[int] = []
    whole = run(lambda record, _: None)
    with pytest.raises(PowerCutError):
        run(cut, file)
    resumed = run(lambda record, _: seen.append(record.step), file)
    assert seen[0] == 4
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_the_memory_plan_counts_it(tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path)
    rehearsal = rehearsal_for(load_encoder(path, device="cpu"))
    alone = largest_step_tokens(data, 8, seed=1)
    assert largest_step_tokens(data, 8, seed=1, rehearsal=rehearsal) == pytest.approx(
        alone + rehearsal.tokens(0), rel=0.1
    )


def test_divergence_is_zero_for_equal_rankings_and_grows() -> None:
    kept = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert float(ranking_divergence(kept + 0.3, kept, temperature=0.05)) == pytest.approx(0.0, abs=1e-5)
    for shift in (
        torch.arange(5.0)[:, None],
        torch.arange(7.0)[None, :],
    ):  # the one direction's constants, not the other's
        assert float(ranking_divergence(kept + shift, kept, temperature=1.0)) > 0.1
    slight, great = (float(ranking_divergence(kept * factor, kept, temperature=1.0)) for factor in (1.1, 2.0))
    assert 0 < slight < great
