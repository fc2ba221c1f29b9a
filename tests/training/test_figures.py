"""A step's figures are read once, in order, and on CUDA a step late; reading late changes nothing that is learnt."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.transfer import Arrival
from embed_assets.training.adapter import adapter_state
from embed_assets.training.figures import Figures, QueuedStep
from embed_assets.training.loop import train
from embed_assets.training.start import Run
from embed_assets.training.validation import ValidationSet
from tests.training.made_pairs import ONE_GO, tiny_data, tiny_recipe


def test_on_cuda_the_last_step_waits_until_all_are_wanted() -> None:
    batch: Any = None
    steps = [QueuedStep(number, 8, batch, 0.1, Arrival(torch.zeros(2))) for number in range(4)]
    on_cuda: Any = SimpleNamespace(on_cuda=True)
    figures = Figures(on_cuda, 4)
    assert figures.due(steps[0], all_of_them=False) == []
    assert figures.due(steps[1], all_of_them=False) == [steps[0]]
    assert figures.due(steps[2], all_of_them=True) == [steps[1], steps[2]]
    assert figures.due(steps[3], all_of_them=True) == [steps[3]]
    on_cpu: Any = SimpleNamespace(on_cuda=False)
    assert Figures(on_cpu, 4).due(steps[0], all_of_them=False) == [steps[0]]


def test_reading_a_step_late_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = tiny_data(tmp_path)
    validation = ValidationSet(
        query_tokens=data.query_tokens, passage_tokens=data.passage_tokens[:30], relevant=np.eye(30, dtype=bool)
    )
    seen: list[list[tuple[int, float, float | None]]] = []
    states = []
    for late in (False, True):
        monkeypatch.setattr(Run, "on_cuda", late)
        encoder = load_encoder(path, device="cpu")
        result = train(encoder, data, tiny_recipe(), plan=ONE_GO, validation=validation)
        seen.append([(record.step, record.loss, record.validation_mrr) for record in result.curve])
        states.append(adapter_state(encoder.model))
    assert seen[0] == seen[1]
    assert [step for step, *_ in seen[0]] == list(range(1, 9))
    assert [mrr is not None for *_, mrr in seen[0]] == [False, False, False, True] * 2
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
