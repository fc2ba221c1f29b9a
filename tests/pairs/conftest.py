"""A repository to write commits into, and a guard that is quick to make."""

from pathlib import Path

import pytest

from embed_assets.pairs import guard
from embed_assets.pairs.corpus import Corpus
from tests.pairs.written_history import WrittenHistory


@pytest.fixture
def written(tmp_path: Path) -> WrittenHistory:
    return WrittenHistory(tmp_path / "shop.git")


@pytest.fixture
def small_guard(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The standard library is parsed once for all tests; `settings_for` asks for the smallest guard there may be."""
    folder = tmp_path_factory.getbasetemp() / "library"
    library = guard._library

    def shared(cache: Path) -> Corpus:
        return library(folder)

    monkeypatch.setattr(guard, "_library", shared)
