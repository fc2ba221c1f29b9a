"""From one file to its definitions: name, scope, signature, doc, and the code with the doc taken out.

Pure: bytes and a language in, records out. Never fails on odd input; a file cut off or full of garbage yields what
can still be recognised. Knows nothing of repositories and caches.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass, replace

from tree_sitter import Node

from embed_assets.records import SnippetKind, digest_of
from embed_assets.snippets.docs import attribute_text, comment_text, docstring_text
from embed_assets.snippets.languages import BY_NAME
from embed_assets.snippets.names import first_child
from embed_assets.snippets.parts import Cut, joined, part_starts
from embed_assets.snippets.syntax import Item, definitions_in

EXTRACTOR_VERSION = "4"
"""Part of the cache's key: raise it whenever the same file yields other definitions."""
MAX_SIGNATURE = 500

_BLANK_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")
_HEAD_END = re.compile(r"(?:\s*(?:\{|=>|=|:|->|;|\bdo|\bend|,\s*do:.*))+\s*$", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """A definition as one file shows it; `collect` adds where the file lies. Fields as in records.Snippet."""

    kind: SnippetKind
    scope: str
    name: str
    disambiguator: str
    """Tells apart what shares scope and name: trait, arity, and the ordinal from the second on."""
    signature: str
    doc: str
    code: str
    start_line: int
    """1-based; decorators and attributes belong to the definition, a doc comment above does not."""
    end_line: int
    parts: tuple[str, ...] = ()


def extract(source: bytes, language: str) -> list[Definition]:
    """Definitions of one file in document order: functions, methods, classes, modules.

    A function's code holds the functions inside it. A class's or module's code is its head and attributes: what is
    defined inside stands for itself.

    Args:
        source: the file; UTF-8, or else read as Latin-1.
        language: a name of the table in `languages`.

    Raises:
        GrammarError: the grammar is missing or does not fit the table.
    """
    text = _as_utf8(source)
    lines = [match.end() for match in re.finditer(rb"\n", text)]
    definitions = [_define(text, lines, item, language) for item in definitions_in(text, language)]
    if BY_NAME[language].merges_clauses:
        definitions = _merge_clauses(definitions, language)
    return _number_repeated(definitions)


def definition_id_of(repository: str, path: str, definition: Definition) -> str:
    """Which definition, stable while it keeps its place and name."""
    return digest_of(repository, path, definition.scope, definition.name, definition.disambiguator)


def snippet_id_of(language: str, code: str) -> str:
    """Which content: the same for code that differs in white space only."""
    return digest_of(language, "".join(code.split()))


def _as_utf8(source: bytes) -> bytes:
    """UTF-8 with Unix line ends, so that a checkout's line ends make no difference."""
    source = source.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    try:
        source.decode("utf-8")
    except UnicodeDecodeError:
        return source.decode("latin-1").encode("utf-8")
    return source


def _define(source: bytes, lines: list[int], item: Item, language: str) -> Definition:
    doc, cuts = _documentation(source, item, language)
    starts = part_starts(source, item, cuts) if item.role == "function" else []
    if item.role != "function":
        cuts += [(child.top, child.finish, b"") for child in item.children]
    kind: SnippetKind = "class" if item.role == "class" else "module" if item.role == "module" else "function"
    enclosing = item.parent
    while enclosing is not None and enclosing.role == "wrapper":
        enclosing = enclosing.parent
    if kind == "function" and (item.owner or (enclosing is not None and enclosing.role in ("class", "scope"))):
        kind = "method"
    return Definition(
        kind=kind,
        scope=".".join(item.scope),
        name=item.name,
        disambiguator=item.disambiguator,
        signature=_signature(source, item, language),
        doc=doc,
        code=_code(source, item, cuts, item.begin, item.finish),
        start_line=bisect_right(lines, item.begin) + 1,
        end_line=bisect_right(lines, max(item.begin, item.finish - 1)) + 1,
        parts=_parts(source, item, cuts, starts),
    )


def _documentation(source: bytes, item: Item, language: str) -> tuple[str, list[Cut]]:
    """The doc, and what to cut out of the code for it: start, end, replacement."""
    rule = BY_NAME[language].docs
    texts = [source[part.start : part.end].decode("utf-8") for part in item.docs]
    cuts = [(part.start, part.end, b"") for part in item.docs if part.start >= item.begin]
    if rule == "docstring":
        return _docstring(item.first("body"), cuts)
    comments = [text for part, text in zip(item.docs, texts, strict=True) if part.role == "comment"]
    attributes = [attribute_text(text) for part, text in zip(item.docs, texts, strict=True) if part.role == "lead"]
    return "\n".join(part for part in (comment_text(comments), *attributes) if part), cuts


def _docstring(body: Node | None, cuts: list[Cut]) -> tuple[str, list[Cut]]:
    statement = first_child(body)
    literal = first_child(statement)
    if body is None or statement is None or literal is None:
        return "", cuts
    is_literal = statement.type == "expression_statement" and literal.type == "string"
    doc = docstring_text((literal.text or b"").decode("utf-8")) if is_literal else ""
    if not doc or statement.named_child_count != 1:
        return "", cuts
    alone = body.named_child_count == 1
    return doc, [*cuts, (statement.start_byte, statement.end_byte, b"..." if alone else b"")]


def _signature(source: bytes, item: Item, language: str) -> str:
    body = item.first("body")
    start = (
        min(item.start, item.parent.start) if item.parent is not None and item.parent.role == "wrapper" else item.start
    )
    end = body.start_byte if body is not None else item.end
    if item.role == "function" and language == "elixir":  # What `def` is called with first is the whole head.
        called_with = first_child(item.first("name"))
        end = called_with.end_byte if called_with is not None else end
    pieces = []
    for comment in item.head_comments:
        pieces.append(source[start : comment.start])
        start = max(start, comment.end)
    head = b" ".join([*pieces, source[start:end]])[: 8 * MAX_SIGNATURE].decode("utf-8", "ignore")
    if body is None and language != "elixir":
        head = _up_to_a_brace(head)
    return " ".join(_HEAD_END.sub("", head).split())[:MAX_SIGNATURE]


def _up_to_a_brace(text: str) -> str:
    """A head without a body of its own in the syntax tree: it ends where a brace opens outside of parentheses."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if character == "{" and depth <= 0:
            return text[:place]
    return text


def _parts(source: bytes, item: Item, cuts: list[Cut], starts: list[int]) -> tuple[str, ...]:
    if not starts:
        return ()
    ends = [*starts, item.finish]
    spans = zip([item.begin, *starts], ends, strict=True)
    parts = tuple(part for span in spans if (part := _code(source, item, cuts, *span)))
    return parts if len(parts) > 1 else ()


def _code(source: bytes, item: Item, cuts: list[Cut], begin: int, finish: int) -> str:
    """Source text from `begin` to `finish`, cuts taken out, indented as if `item` stood at the margin."""
    pieces, position = [], begin
    for start, end, replacement in sorted(cuts):
        if start < position or start >= finish:
            continue
        if not replacement:
            start, end = _whole_lines(source, start, end)
        pieces += [source[position : max(position, start)], replacement]
        position = min(end, finish)
    pieces.append(source[position:finish])
    code = b"".join(pieces).decode("utf-8", "replace")
    line_start = source.rfind(b"\n", 0, item.begin) + 1
    indentation = source[line_start : item.begin].decode("utf-8", "replace")
    if indentation and indentation.isspace():
        code = code.replace(f"\n{indentation}", "\n")
    return (_BLANK_LINES.sub("\n\n", code) if item.role != "function" else code).strip()


def _whole_lines(source: bytes, start: int, end: int) -> tuple[int, int]:
    """The range with its line breaks and indentation, if nothing else stands on its lines."""
    before, after = start, end
    while before > 0 and source[before - 1] in b" \t":
        before -= 1
    while after < len(source) and source[after] in b" \t\r;":
        after += 1
    if (before == 0 or source[before - 1] in b"\r\n") and (after == len(source) or source[after] in b"\n"):
        return before, min(after + 1, len(source))
    return start, end


def _merge_clauses(definitions: list[Definition], language: str) -> list[Definition]:
    """The clauses of one function are one definition: they share scope, name and arity."""
    merged: list[Definition] = []
    places: dict[tuple[str, str, str], int] = {}
    parts: dict[int, list[str]] = {}
    for definition in definitions:
        key = (definition.scope, definition.name, definition.disambiguator)
        place = places.get(key)
        if definition.kind == "module" or place is None:
            if definition.kind != "module":
                places[key] = len(merged)
            merged.append(definition)
            continue
        first = merged[place]
        parts.setdefault(place, [*(first.parts or [first.code])]).extend(definition.parts or [definition.code])
        merged[place] = replace(
            first,
            # Elixir's `@doc` may stand at any clause; a comment above a later one of Erlang's is about that clause.
            doc=first.doc or (definition.doc if language == "elixir" else ""),
            code=f"{first.code}\n\n{definition.code}",
            end_line=max(first.end_line, definition.end_line),
        )
    for place, divided in parts.items():
        merged[place] = replace(merged[place], parts=joined(divided))
    return merged


def _number_repeated(definitions: list[Definition]) -> list[Definition]:
    seen: dict[tuple[str, str, str], int] = {}
    numbered = []
    for definition in definitions:
        key = (definition.scope, definition.name, definition.disambiguator)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            definition = replace(definition, disambiguator=f"{definition.disambiguator}#{seen[key]}")
        numbered.append(definition)
    return numbered
