"""Tiny models for the tests of serving: e5's architecture, since its two prompts tell queries from passages."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embed_assets.settings import ModelSettings, ServingSettings, Settings
from embed_assets.store import Store
from tests.serving.running_service import Running, perturbed, running, write_checkpoint
from tests.tiny_models import build


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("e5-large", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def tuned_models(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three others of the same shape."""
    folder = tmp_path_factory.mktemp("tuned")
    return [perturbed(base_model, folder / str(seed), seed) for seed in (1, 2, 3)]


@pytest.fixture
def settings(base_model: Path, store: Store) -> Settings:
    return Settings(
        data_dir=store.root,
        model=ModelSettings(name=str(base_model)),
        serving=ServingSettings(
            port=0, device="cpu", max_inputs=64, max_request_tokens=4000, threads=1, drain_seconds=5
        ),
    )


@pytest.fixture
def checkpoints(store: Store, tuned_models: list[Path]) -> list[str]:
    """Three whole checkpoints; none is promoted."""
    names = ["20261101-a", "20261102-b", "20261103-c"]
    for name, model in zip(names, tuned_models, strict=True):
        write_checkpoint(store, name, model)
    return names


@pytest.fixture
def live(settings: Settings) -> Iterator[Running]:
    """The service on the base model."""
    with running(settings) as service:
        yield service
