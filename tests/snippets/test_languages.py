"""The table: every grammar loads, a broken one is loud, and tests are told from code."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from embed_assets.settings import Settings
from embed_assets.snippets import grammars
from embed_assets.snippets.collect import collect_snippets
from embed_assets.snippets.grammars import GrammarError, check_grammars
from embed_assets.snippets.languages import BY_NAME, LANGUAGES, is_test, language_of
from embed_assets.snippets.parse import load_grammars, parse
from embed_assets.store import Store


def test_every_grammar_fits_the_table() -> None:
    assert check_grammars() == {}


def test_no_extension_belongs_to_two_languages() -> None:
    extensions = [extension for language in LANGUAGES for extension in language.extensions]
    assert len(extensions) == len(set(extensions))


def test_a_missing_grammar_is_an_error_and_never_an_empty_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name}")

    grammars.grammar_of.cache_clear()
    grammars.query_of.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    try:
        assert set(check_grammars()) == {language.name for language in LANGUAGES}
        with pytest.raises(GrammarError, match="pip install tree-sitter-python"):
            load_grammars(["python"])
        with pytest.raises(GrammarError):
            parse(b"def f(): pass\n", "python")
    finally:
        grammars.grammar_of.cache_clear()
        grammars.query_of.cache_clear()


def test_a_night_begins_with_all_grammars_or_not_at_all(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody learns weeks later that a language had no snippets."""
    swift = replace(BY_NAME["swift"], grammar="tree_sitter_gone")
    monkeypatch.setattr(grammars, "BY_NAME", {**BY_NAME, "swift": swift})
    grammars.grammar_of.cache_clear()
    try:
        with pytest.raises(GrammarError, match=r"swift cannot be loaded.*pip install tree-sitter-gone"):
            collect_snippets(Settings(repositories=()), store)
    finally:
        grammars.grammar_of.cache_clear()


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("A.JAVA", "java"),
        ("x.tsx", "tsx"),
        ("x.exs", "elixir"),
        ("x.h", "cpp"),
        ("x.md", None),
        ("py", None),
    ],
)
def test_languages_by_extension(path: str, language: str | None) -> None:
    assert language_of(path) == language


@pytest.mark.parametrize(
    ("path", "language", "scope", "expected"),
    [
        ("tests/test_cart.py", "python", "", True),
        ("shop/test_cart.py", "python", "", True),
        ("shop/contest.py", "python", "", False),
        ("src/cart.rs", "rust", "tests", True),
        ("src/cart.rs", "rust", "Cart", False),
        ("src/testutil.rs", "rust", "", True),
        ("src/test_helpers/mod.rs", "rust", "", True),
        ("src/cart_tests.rs", "rust", "", True),
        ("src/attest.rs", "rust", "", False),
        ("internal/testutil/server.go", "go", "", True),
        ("test_helpers.go", "go", "", False),
        ("cart_test.go", "go", "", True),
        ("cart.go", "go", "", False),
        ("src/test/java/CartTest.java", "java", "", True),
        ("src/main/java/Cart.java", "java", "", False),
        ("src/cart.spec.ts", "typescript", "", True),
        ("src/inspect.ts", "typescript", "", False),
        ("test/cart_test.exs", "elixir", "", True),
        ("lib/cart.ex", "elixir", "", False),
        ("spec/cart_spec.rb", "ruby", "", True),
    ],
)
def test_tests_are_told_from_code(path: str, language: str, scope: str, expected: bool) -> None:
    assert is_test(path, language, scope) is expected
