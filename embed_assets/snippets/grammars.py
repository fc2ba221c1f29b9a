"""Compiled grammars and queries of the table's languages: all there and fitting, or an error that says what to install.

Knows the wheels; what the queries look for, `languages` knows.
"""

import functools
import importlib
import importlib.metadata
from collections.abc import Callable

import tree_sitter

from embed_assets.snippets.languages import BY_NAME, LANGUAGES


class GrammarError(RuntimeError):
    """A grammar is missing, or does not fit the table: nothing may be extracted as if it were empty."""


@functools.cache
def grammar_of(language: str) -> tree_sitter.Language:
    """The compiled grammar of a language of the table.

    Raises:
        GrammarError: its wheel is missing or does not fit the installed tree-sitter.
    """
    entry = BY_NAME[language]
    try:
        module = importlib.import_module(entry.grammar)
        return tree_sitter.Language(getattr(module, entry.grammar_function)())
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise GrammarError(
            f"the grammar of {language} cannot be loaded ({error}); reinstall it: pip install {entry.wheel}"
        ) from error


@functools.cache
def query_of(language: str) -> tree_sitter.Query:
    """The compiled query of a language of the table.

    Raises:
        GrammarError: the grammar is missing, or names its nodes differently.
    """
    grammar = grammar_of(language)
    try:
        return tree_sitter.Query(grammar, BY_NAME[language].query)
    except tree_sitter.QueryError as error:
        raise GrammarError(
            f"the installed {BY_NAME[language].wheel} does not know the nodes that {language} is extracted by "
            f"({error}); install the version of constraints.txt"
        ) from error


def require_grammars() -> dict[str, str]:
    """Language -> wheel and version of its grammar, when those of the whole table load.

    Whether their nodes fit the table is looked at for the languages at hand, and for all by `check_grammars`, which
    takes a second, most of it Swift's.

    Raises:
        GrammarError: naming every one that does not load, and what to do.
    """
    problems = _problems(grammar_of)
    if problems:
        raise GrammarError("; ".join(problems.values()))
    return {entry.name: f"{entry.wheel} {importlib.metadata.version(entry.wheel)}" for entry in LANGUAGES}


def check_grammars() -> dict[str, str]:
    """Loads every grammar, and fits it to the table. Returns language -> what is wrong, for the broken ones only."""
    return _problems(query_of)


def _problems(load: Callable[[str], object]) -> dict[str, str]:
    problems = {}
    for entry in LANGUAGES:
        try:
            load(entry.name)
        except GrammarError as error:
            problems[entry.name] = str(error)
    return problems
