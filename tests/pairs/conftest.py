"""A repository to write commits into, and a guard that is quick to make."""

from pathlib import Path

import polars as pl
import pytest

from embed_assets.pairs import guard, rehearsal
from embed_assets.pairs.corpus import Corpus
from tests.pairs.written_history import WrittenHistory


@pytest.fixture
def written(tmp_path: Path) -> WrittenHistory:
    return WrittenHistory(tmp_path / "shop.git")


@pytest.fixture
def small_guard(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Foreign code is parsed once for all tests; `settings_for` asks for the smallest guard there may be."""
    folder = tmp_path_factory.getbasetemp() / "library"
    library, functions = guard._library, rehearsal._functions

    def shared(cache: Path) -> Corpus:
        return library(folder)

    def shared_functions(name: str, number: str, cache: Path) -> pl.DataFrame:
        return functions(name, number, folder)

    monkeypatch.setattr(guard, "_library", shared)
    monkeypatch.setattr(rehearsal, "_functions", shared_functions)
    monkeypatch.setattr(rehearsal, "FILES_PER_PACKAGE", 40)
