"""What the UI shows of the snippets: every figure of the manifest, under names that stay from night to night."""

from pathlib import Path

import polars as pl
import pytest

from embed_assets.defs.metadata import ALWAYS_COUNTED, of_snippets
from embed_assets.snippets.collect import collect_snippets
from embed_assets.snippets.languages import LANGUAGES
from embed_assets.store import Store
from tests.snippets.made_repositories import make_repository
from tests.snippets.test_collect import settings_for


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(
        tmp_path / "mixed",
        {
            "a.py": 'def a():\n    """Adds."""\n    return 1\n\ndef b():\n    return 2\n',
            "again.py": "def b():\n    return 2\n",
            "c.go": "package c\n\nfunc C() {}\n",
            "d.py": "# @generated\ndef d(): pass\n",
            "notes.txt": "text",
        },
    )


def test_the_snippets_metadata_counts_rows_reasons_and_duplicates(repository: Path, store: Store) -> None:
    manifest = collect_snippets(settings_for(repository), store)
    shown = of_snippets(manifest, store)
    assert shown["dagster/row_count"] == pl.read_parquet(store.snippets).height == 3
    assert {name: value for name, value in shown.items() if name.startswith("rows/")} == {
        "rows/go": 1,
        "rows/python": 2,
    }
    dropped = {name: value for name, value in shown.items() if name.startswith("dropped/")}
    assert dropped == {f"dropped/{reason}": 0 for reason in ALWAYS_COUNTED} | {
        "dropped/generated": 1,
        "dropped/unknown_language": 1,
    }
    assert (shown["documented"], shown["duplicates"], shown["failed_repositories"]) == (1, 1, 0)
    assert shown["grammars"] == len(LANGUAGES)
    assert "| python | 2 | 1 | tree-sitter-python " in shown["by_language"].value
    assert shown["repositories"].value.splitlines()[-1].endswith("| 4 | 4 | 4 | 1 | 2 |")


def test_numbers_keep_their_names_on_a_night_without_such_cases(repository: Path, store: Store) -> None:
    first = of_snippets(collect_snippets(settings_for(repository), store), store)
    second = of_snippets(collect_snippets(settings_for(repository), store), store)
    assert numbers(first) == numbers(second)
    assert (first["parsed_files"], second["parsed_files"]) == (4, 0)


def numbers(shown: dict[str, object]) -> set[str]:
    return {name for name, value in shown.items() if isinstance(value, (int, float))}
