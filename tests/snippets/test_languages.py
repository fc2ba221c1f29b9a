"""The table: every grammar loads, a broken one is loud, and tests are told from code."""

import importlib

import pytest

from embed_assets.snippets import languages
from embed_assets.snippets.languages import LANGUAGES, GrammarError, check_grammars, is_test, language_of
from embed_assets.snippets.parse import load_grammars, parse


def test_every_grammar_fits_the_table() -> None:
    assert check_grammars() == {}


def test_no_extension_belongs_to_two_languages() -> None:
    extensions = [extension for language in LANGUAGES for extension in language.extensions]
    assert len(extensions) == len(set(extensions))


def test_a_missing_grammar_is_an_error_and_never_an_empty_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name}")

    languages.grammar_of.cache_clear()
    languages.query_of.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    try:
        assert set(check_grammars()) == {language.name for language in LANGUAGES}
        with pytest.raises(GrammarError, match="pip install tree-sitter-python"):
            load_grammars(["python"])
        with pytest.raises(GrammarError):
            parse(b"def f(): pass\n", "python")
    finally:
        languages.grammar_of.cache_clear()
        languages.query_of.cache_clear()


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("A.JAVA", "java"),
        ("x.tsx", "tsx"),
        ("x.exs", "elixir"),
        ("x.h", "c"),
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
