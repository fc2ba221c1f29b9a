"""The functions in one version of a file, as much of them as it takes to tell what a commit changed.

Taken in the processes that parse, so that little travels between them. Knows nothing of commits.
"""

from typing import NamedTuple

from embed_assets.snippets.extract import Definition, snippet_id_of
from embed_assets.snippets.languages import is_test
from embed_assets.snippets.parse import PARSER_CRASHED, Blob, Parsed


class Place(NamedTuple):
    """Which function of a file."""

    scope: str
    name: str
    disambiguator: str


class Version(NamedTuple):
    """A function in one version of a file."""

    content: str
    """Identity of its own code without white space, inner functions left out."""
    code: str


def functions_of(blob: Blob, parsed: Parsed) -> dict[Place, Version] | None:
    """The functions of a file that are no tests; None where the parser crashed, which says nothing of the file."""
    if parsed.reason == PARSER_CRASHED:
        return None
    definitions = [
        definition
        for definition in parsed.definitions
        if definition.kind in ("function", "method")
        and not is_test("", blob.language, definition.scope, definition.name)
    ]
    inner: dict[str, list[Definition]] = {}
    for definition in definitions:
        inner.setdefault(definition.scope, []).append(definition)
    versions = {}
    for definition in definitions:
        own = "".join(definition.code.split())
        for nested in inner.get(f"{definition.scope}.{definition.name}".strip("."), ()):
            own = own.replace("".join(nested.code.split()), "", 1)
        place = Place(definition.scope, definition.name, definition.disambiguator)
        versions[place] = Version(snippet_id_of(blob.language, own), definition.code)
    return versions
