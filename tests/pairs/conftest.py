"""A repository to write commits into."""

from pathlib import Path

import pytest
from written_history import WrittenHistory


@pytest.fixture
def written(tmp_path: Path) -> WrittenHistory:
    return WrittenHistory(tmp_path / "shop.git")
