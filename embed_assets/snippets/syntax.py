"""From source text to the nodes that matter: definitions with their enclosing scopes, docs and exact extents.

One query finds all nodes, one sweep in document order nests them, so that the time is linear in the file and no
recursion follows the code's own nesting. Knows nothing of how definitions are written down.
"""

import re
import string
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tree_sitter import Node, Parser, QueryCursor

from embed_assets.snippets.grammars import grammar_of, query_of
from embed_assets.snippets.languages import BY_NAME, Language
from embed_assets.snippets.names import name_rule, text_of, type_name

MAX_DEPTH = 8
"""Definitions nested deeper are part of what encloses them and no definitions of their own: each level repeats the
code of those below it, so that this bounds the output to a multiple of the file. Scopes have as many names at most."""
MAX_SYNTAX_DEPTH = 500
"""Nodes deeper than this are not looked at: a query's time grows with size times depth, and a megabyte of opening
brackets is as deep as it is long."""
LONGEST_RUN = 10_000
"""Tokens without a name in a row; code and even tables of data have a few."""
ROLES = ("wrapper", "namespace", "scope", "module", "class", "function", "lead", "comment")
"""Captures that make an item; at equal extents the earlier one encloses the later."""

MAX_SECONDS = 5.0
"""Of this thread's CPU time, for parsing one file: a hundred times what a megabyte of honest code takes. Small files
are held to it, too: over 3 kB of damaged Kotlin the parser never ended."""
_ENDLESS = tuple(sign.encode() * 2_000 for sign in string.punctuation)
"""Nobody writes two thousand times the same bracket. Parsers look for the most likely reading of them: Scala's for 15
to 39 s, not looking at the clock in between."""
READ_BYTES = 1_024
"""Handed to the parser at once. The text of a node is read in the same steps, so that large ones make names slow."""
NAMING_ROLES = ("namespace", "scope")
"""Name what they enclose and are no definitions."""


class TooSlowError(RuntimeError):
    """A file cannot be parsed in bounded time."""


@dataclass(slots=True, eq=False)
class Item:
    """A captured node. Offsets are bytes."""

    role: str
    start: int
    end: int
    node: Node
    captures: dict[str, list[Node]]
    name: str = ""
    owner: str = ""
    disambiguator: str = ""
    depth: int = 0
    scope: tuple[str, ...] = ()
    parent: "Item | None" = None
    claimed: bool = False
    """A wrapper that has found its definition."""
    begin: int = 0
    """Where the definition begins with its wrappers and leads."""
    finish: int = 0
    """Where it ends with its wrappers."""
    top: int = 0
    """Where it begins with its documentation."""
    docs: list["Item"] = field(default_factory=list)
    """Documenting comments and attributes, in document order."""
    head_comments: list["Item"] = field(default_factory=list)
    """Comments between its beginning and its body."""
    children: list["Item"] = field(default_factory=list)
    """Definitions directly inside, or inside what only names them."""

    def first(self, capture: str) -> Node | None:
        nodes = self.captures.get(capture)
        return nodes[0] if nodes else None


def definitions_in(source: bytes, language: str) -> list[Item]:
    """Definitions (roles `function`, `class`, `module`) of a file, in document order.

    Raises:
        GrammarError: the grammar is missing or does not fit the table.
        TooSlowError: the file takes longer than MAX_SECONDS, as garbage and tables of data can.
    """
    if any(run in source for run in _ENDLESS):
        raise TooSlowError("the same sign thousands of times in a row")
    entry = BY_NAME[language]
    cursor = QueryCursor(query_of(language))
    cursor.set_max_start_depth(MAX_SYNTAX_DEPTH)
    root = _parse(source, language)
    _refuse_endless_runs(root)
    items = _items(cursor.matches(root))
    found, annotations = _nest(items, entry)
    neighbours = {_trimmed_end(source, item): item for item in annotations}
    for item in found:
        _leave_following_comments(source, item, neighbours)
        _attach_docs(source, item, neighbours, entry)
    return found


def _parse(source: bytes, language: str) -> Node:
    deadline = time.thread_time() + MAX_SECONDS
    try:
        tree = Parser(grammar_of(language)).parse(
            lambda offset, _: source[offset : offset + READ_BYTES],
            progress_callback=lambda _offset, _has_error: time.thread_time() > deadline,
        )
    except ValueError as error:  # tree-sitter 0.26 leaks what it had taken: up to a gigabyte in these seconds.
        raise TooSlowError(f"not parsed within {MAX_SECONDS:g} s") from error
    return tree.root_node


def _refuse_endless_runs(root: Node) -> None:
    """
    Raises:
        TooSlowError: tokens without a name follow each other by the thousand, as in a megabyte of brackets: a query
            looks for the next named sibling from each of them, which is quadratic and cannot be interrupted.
    """
    level = [root]
    for _ in range(MAX_SYNTAX_DEPTH):
        children = [child for node in level if node.descendant_count > LONGEST_RUN for child in node.children]
        run = 0
        for child in children:
            run = 0 if child.is_named else run + 1
            if run > LONGEST_RUN:
                raise TooSlowError(f"more than {LONGEST_RUN} tokens without a name in a row")
        level = children


def _items(matches: list[tuple[int, dict[str, list[Node]]]]) -> list[Item]:
    """One item per role and extent: optional captures and several declarators match a node more than once."""
    best: dict[tuple[str, int, int], Item] = {}
    for _, captures in matches:
        role = next((name for name in ROLES if name in captures), None)
        if role is None:
            continue
        node = captures[role][0]
        item = Item(role=role, start=node.start_byte, end=node.end_byte, node=node, captures=captures)
        key = (role, item.start, item.end)
        if key not in best or len(best[key].captures) < len(captures):
            best[key] = item
    return sorted(best.values(), key=lambda item: (item.start, -item.end, ROLES.index(item.role)))


def _nest(items: list[Item], language: Language) -> tuple[list[Item], list[Item]]:
    """Definitions with scope and wrappers settled, and the comments and leads around them."""
    found: list[Item] = []
    annotations: list[Item] = []
    stack: list[Item] = []
    for item in items:
        while stack and stack[-1].end <= item.start:
            stack.pop()
        item.parent = stack[-1] if stack else None
        if item.role in ("comment", "lead"):
            if item.parent is not None and language.inner_doc and re.match(language.inner_doc, text_of(item.node)):
                item.parent.docs.append(item)
            else:
                annotations.append(item)
            if item.role == "comment" and item.parent is not None and _in_head(item, item.parent):
                item.parent.head_comments.append(item)
            continue
        if item.role == "wrapper":
            stack.append(item)
            continue
        enclosing = _settle(item, language)
        names_too_much = item.role in NAMING_ROLES and len(item.scope) >= MAX_DEPTH
        if item.name and item.depth <= MAX_DEPTH and not names_too_much:
            stack.append(item)
            if item.role not in NAMING_ROLES and (
                item.role != "function" or item.first("body") or not language.needs_body
            ):
                found.append(item)
                while enclosing is not None and enclosing.role in (*NAMING_ROLES, "wrapper"):
                    enclosing = enclosing.parent
                if enclosing is not None:
                    enclosing.children.append(item)
    return found, annotations


def _in_head(comment: Item, item: Item) -> bool:
    body = item.first("body")
    return body is not None and comment.end <= body.start_byte


def _settle(item: Item, language: Language) -> Item | None:
    """Fills in name, scope, depth and extent; returns the definition or scope that encloses the item."""
    item.begin, item.finish = item.start, item.end
    enclosing = item.parent
    while enclosing is not None and enclosing.role == "wrapper":
        if not enclosing.claimed and item.role not in NAMING_ROLES:
            enclosing.claimed = True
            item.begin, item.finish = enclosing.start, enclosing.end
        enclosing = enclosing.parent
    name_node = item.first("name")
    if name_node is not None:
        item.name, item.owner, item.disambiguator = name_rule(language.name, item.role)(name_node)
    if item.role in NAMING_ROLES:
        item.name = type_name(item.name)
    if item.first("owner") is not None:
        item.owner = type_name(text_of(item.first("owner")))
    if enclosing is not None:
        item.depth = enclosing.depth + (enclosing.role not in NAMING_ROLES)
        item.scope = (*enclosing.scope, enclosing.name)
        qualifier = enclosing.first("qualifier")
        if qualifier is not None:
            item.disambiguator = text_of(qualifier)[:200]
    if item.owner:
        item.scope = (*item.scope, item.owner)
    return enclosing


def _leave_following_comments(source: bytes, item: Item, neighbours: dict[int, Item]) -> None:
    """Where indentation ends a body (Scala), the grammar counts the next definition's doc to it."""
    while item.finish == item.end:
        last = neighbours.get(_trimmed_end(source, item))
        if last is None or last.role != "comment" or last.start <= item.start:
            return
        if _column(source, last.start) > _column(source, item.start) or not _starts_line(source, last.start):
            return
        item.end = item.finish = last.start
        item.end = item.finish = _trimmed_end(source, item)


def _attach_docs(source: bytes, item: Item, neighbours: dict[int, Item], language: Language) -> None:
    """Walks upwards from the definition over the comments and leads that touch it."""
    item.top = item.begin
    above: list[Item] = []
    for neighbour, blank_line in _above(source, item, neighbours):
        text = source[neighbour.start : neighbour.end].decode("utf-8", "replace")
        if neighbour.role == "lead":
            if language.leads and not re.match(language.leads, text):
                break
            documents = bool(language.doc_lead) and re.match(language.doc_lead, text) is not None
            if documents:
                above.append(neighbour)
            else:
                item.begin = neighbour.start
        else:
            if blank_line:
                break
            documents = re.match(language.doc_comment, text) is not None
            if not documents and language.docs == "comments" and above:
                break
            if documents:
                above.append(neighbour)
        if documents or neighbour.role == "lead":
            item.top = min(item.top, neighbour.start)
    item.docs = above[::-1] + item.docs


def _above(source: bytes, item: Item, neighbours: dict[int, Item]) -> Iterator[tuple[Item, bool]]:
    """The comments and leads directly above, nearest first, and whether a blank line lies in between."""
    position = item.begin
    while True:
        end = position
        while end > 0 and source[end - 1] in b" \t\r\n\f":
            end -= 1
        neighbour = neighbours.get(end)
        if neighbour is None or neighbour.start >= position:
            return
        if neighbour.role == "comment" and not _starts_line(source, neighbour.start):
            return
        yield neighbour, source.count(b"\n", end, position) > 1
        position = neighbour.start


def _column(source: bytes, start: int) -> int:
    return start - (source.rfind(b"\n", 0, start) + 1)


def _starts_line(source: bytes, start: int) -> bool:
    while start > 0 and source[start - 1] in b" \t\r\f":
        start -= 1
    return start == 0 or source[start - 1] in b"\n"


def _trimmed_end(source: bytes, item: Item) -> int:
    end = item.end
    while end > item.start and source[end - 1] in b" \t\r\n\f":
        end -= 1
    return end
