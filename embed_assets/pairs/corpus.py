"""The functions that can be found: every repository's tree at T, tests left out, each content once.

Knows which definition stands for its copies. Knows nothing of queries.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import polars as pl

from embed_assets.records import CORPUS_SCHEMA, digest_of, embedded_text

MOST_PARTS = 3
"""Of a long function, from its beginning: more of them found no more, and cost a third more (docs/experiments.md)."""
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A function or method at one moment: what a query may be answered with."""

    definition_id: str
    snippet_id: str
    repository: str
    path: str
    language: str
    scope: str
    name: str
    code: str
    doc: str = ""
    parts: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return embedded_text(path=self.path, scope=self.scope, name=self.name, code=self.code)

    @property
    def part_texts(self) -> list[str]:
        """What stands for it where a model cannot read `text` whole; empty for what is short."""
        parts = self.parts[:MOST_PARTS]
        return [embedded_text(path=self.path, scope=self.scope, name=self.name, code=part) for part in parts]


@dataclass(frozen=True)
class Corpus:
    """The functions of all trees, and for each content the one that stands for it."""

    functions: Mapping[str, Function]
    """Every function by definition id, copies included."""
    representatives: Mapping[str, str]
    """snippet_id -> definition_id of the function in the corpus."""

    def representative(self, function: Function) -> Function:
        return self.functions[self.representatives[function.snippet_id]]

    def copies(self, function: Function) -> list[Function]:
        """Every function of the trees with this one's content, itself among them where it is there."""
        return self._by_content.get(function.snippet_id, [])

    def documents(self) -> list[Function]:
        """One function for each content, by id."""
        return sorted((self.functions[found] for found in self.representatives.values()), key=lambda f: f.definition_id)

    @cached_property
    def _by_content(self) -> dict[str, list[Function]]:
        return _grouped(self.functions.values(), lambda function: function.snippet_id)

    @cached_property
    def by_file(self) -> dict[tuple[str, str], list[Function]]:
        """(repository, path) -> its functions, in the order of the file."""
        return _grouped(self.functions.values(), lambda function: (function.repository, function.path))

    @cached_property
    def by_name(self) -> dict[tuple[str, str, str], list[Function]]:
        """(repository, scope, name) -> functions called so."""
        return _grouped(self.functions.values(), lambda function: (function.repository, function.scope, function.name))

    def table(self) -> pl.DataFrame:
        """Schema CORPUS_SCHEMA."""
        documents = self.documents()
        return pl.DataFrame(
            {
                "document_id": [function.definition_id for function in documents],
                "text": [function.text for function in documents],
                "parts": [function.part_texts for function in documents],
                "repository": [function.repository for function in documents],
                "language": [function.language for function in documents],
                "path": [function.path for function in documents],
                "name": [function.name for function in documents],
            },
            schema=dict(CORPUS_SCHEMA),
        )


def corpus_of(snippets: Iterable[pl.DataFrame]) -> Corpus:
    """The corpus of several trees (SNIPPET_SCHEMA). Of equal contents the first in path order stands for all."""
    functions: dict[str, Function] = {}
    for table in snippets:
        code = table.filter(pl.col("kind").is_in(["function", "method"]) & ~pl.col("is_test"))
        for row in code.sort("repository", "path", "start_line").iter_rows(named=True):
            row["parts"] = tuple(row["parts"])
            function = Function(**{name: row[name] for name in Function.__dataclass_fields__})
            functions.setdefault(function.definition_id, function)
    representatives: dict[str, str] = {}
    for definition_id, function in functions.items():
        representatives.setdefault(function.snippet_id, definition_id)
    return Corpus(functions, representatives)


def definition_id_at(repository: str, path: str, scope: str, name: str, disambiguator: str) -> str:
    """The id that `snippets` gives to a definition in this place."""
    return digest_of(repository, path, scope, name, disambiguator)


def _grouped(functions: Iterable[Function], key: Callable[[Function], _Key]) -> dict[_Key, list[Function]]:
    groups: dict[_Key, list[Function]] = {}
    for function in functions:
        groups.setdefault(key(function), []).append(function)
    return groups
