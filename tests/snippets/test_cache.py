"""What was parsed once is read back the same; what is damaged is replaced."""

import sqlite3
from pathlib import Path

import pytest

from embed_assets.snippets import cache
from embed_assets.snippets.cache import DefinitionCache, cache_version
from embed_assets.snippets.parse import Parsed, parse
from tests.snippets.test_extract import FIXTURES


def filled(folder: Path) -> dict[tuple[str, str], Parsed]:
    entries = {
        (f"{number:040x}", language): parse(source.encode(), language)
        for number, (language, (source, _)) in enumerate(FIXTURES.items())
    }
    entries["f" * 40, "python"] = Parsed(reason="binary")
    with DefinitionCache(folder) as opened:
        for key, parsed in entries.items():
            opened.put(key, parsed)
    return entries


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    with DefinitionCache(tmp_path) as opened:
        assert opened.get(entries) == entries
        assert opened.notice == ""


def test_the_language_is_part_of_the_key(tmp_path: Path) -> None:
    filled(tmp_path)
    with DefinitionCache(tmp_path) as opened:
        assert opened.get([("f" * 40, "ruby")]) == {}


@pytest.mark.parametrize("damage", ["header", "payload"])
def test_a_damaged_cache_is_rebuilt_with_a_notice(tmp_path: Path, damage: str) -> None:
    entries = filled(tmp_path)
    (file,) = tmp_path.glob("*.sqlite")
    if damage == "header":
        file.write_bytes(b"not a database" * 100)
    else:
        connection = sqlite3.connect(file)
        connection.execute("UPDATE parsed SET payload = x'00'")
        connection.commit()
        connection.close()
    with DefinitionCache(tmp_path) as opened:
        assert opened.get(entries) == {}
        assert "damaged" in opened.notice
        opened.put(("f" * 40, "python"), Parsed(reason="binary"))
    with DefinitionCache(tmp_path) as opened:
        assert opened.get(entries) == {("f" * 40, "python"): Parsed(reason="binary")}


def test_another_extractor_starts_anew_and_removes_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = filled(tmp_path)
    before = cache_version()
    monkeypatch.setattr(cache, "EXTRACTOR_VERSION", "another")
    assert cache_version() != before
    with DefinitionCache(tmp_path) as opened:
        assert opened.get(entries) == {}
    assert len(list(tmp_path.glob("*.sqlite"))) == 1
