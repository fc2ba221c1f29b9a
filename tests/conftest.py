"""Fixtures for all tests: no network, no model hub, a data directory of its own for each test."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # as a training job does

from embed_assets.store import Store

settings.register_profile("embed_assets", deadline=None)  # a wall clock on a busy machine says nothing about the code
settings.load_profile("embed_assets")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests reaches them."""
    for variable in list(os.environ):
        if variable.startswith("EMBED_ASSETS_") or variable == "DAGSTER_HOME":
            monkeypatch.delenv(variable)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")
