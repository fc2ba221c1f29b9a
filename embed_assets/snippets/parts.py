"""Where a long definition is taken apart: along the syntax tree, as cAST does (Zhang et al. 2025, arXiv:2506.15655).

A node that fits stays whole, one that does not is replaced by its children, and neighbours are joined again while they
fit together. Sizes are characters without white space, so that indentation decides nothing. Knows nothing of models.
"""

from collections.abc import Iterator, Sequence

from tree_sitter import Node

from embed_assets.snippets.syntax import Item

PART_SIZE = 600
"""Bytes without white space: with its header some 200 tokens, which every model of the catalogue reads whole."""
MAX_PART_DEPTH = 200
"""Nodes this far below the definition stay whole: sizes are counted once for each level."""
_BLANKS = b" \t\r\n\f"
Cut = tuple[int, int, bytes]
"""What is not code, such as a doc: start, end, replacement."""


def part_starts(source: bytes, item: Item, cuts: Sequence[Cut]) -> list[int]:
    """Offsets at which the second and later parts of a definition begin: none where it fits into one.

    What is cut out counts nothing and is never divided.
    """
    if item.finish - item.begin <= PART_SIZE:
        return []
    starts: list[int] = []
    filled = _size(source, item.begin, item.node.start_byte, cuts)
    for atom in _atoms(source, item.node, cuts):
        size = _size(source, atom.start_byte, atom.end_byte, cuts)
        if filled and size and filled + size > PART_SIZE and atom.start_byte < item.finish:
            starts.append(atom.start_byte)
            filled = 0
        filled += size
    return starts


def joined(parts: Sequence[str]) -> tuple[str, ...]:
    """Neighbours joined while they fit together; nothing if one is left."""
    together: list[str] = []
    filled = PART_SIZE
    for part in parts:
        size = len(part.encode("utf-8", "replace").translate(None, _BLANKS))
        if filled + size > PART_SIZE:
            together.append(part)
            filled = size
        else:
            together[-1] += f"\n\n{part}"
            filled += size
    return tuple(together) if len(together) > 1 else ()


def _atoms(source: bytes, node: Node, cuts: Sequence[Cut]) -> Iterator[Node]:
    """The largest nodes that fit, in document order; and what does not, but has no children."""
    waiting = [(node, 0)]
    while waiting:
        each, depth = waiting.pop()
        fits = depth >= MAX_PART_DEPTH or _size(source, each.start_byte, each.end_byte, cuts) <= PART_SIZE
        children = [] if fits else each.children
        if children:
            waiting += [(child, depth + 1) for child in reversed(children)]
        else:
            yield each


def _size(source: bytes, start: int, end: int, cuts: Sequence[Cut]) -> int:
    size = len(source[start:end].translate(None, _BLANKS))
    for first, last, _ in cuts:
        first, last = max(first, start), min(last, end)
        if first < last:
            size -= len(source[first:last].translate(None, _BLANKS))
    return size
