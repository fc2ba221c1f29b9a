"""Documentation as people wrote it, freed of comment markers and quotes.

Knows the shapes of comments, docstrings and attributes; nothing of syntax trees.
"""

import inspect
import re

_LINE_MARKER = re.compile(r"^\s*(?://[/!]?|#+!?|--+|%+!?|/\*[*!]*|\*+/|\*+(?!/)|=begin|=end) ?(?:@doc\s+)?")
_DIRECTIVE = re.compile(
    r"^\s*(eslint|prettier|istanbul|c8 |v8 |tslint|jshint|biome|deno-|@ts-|webpack|nolint|clang-format|NOLINT|"
    r"rustfmt|noinspection|coverage:|pylint|mypy|type:|rubocop|go:|\+build|region\b|endregion\b|@formatter)"
)
_RULER = re.compile(r"^[\s\W_]*$")
_PYTHON_STRING = re.compile(r"^([rRuUbBfFtT]{0,2})(\"\"\"|'''|\"|')(.*)\2$", re.DOTALL)
_ATTRIBUTE_STRING = re.compile(r"^(?:~[sS])?(\"\"\"|'''|\"|')(.*)\1[a-z]*$", re.DOTALL)
_RUST_ATTRIBUTE = re.compile(r"^#!?\[doc\s*=\s*r?#*\"(.*)\"#*\s*\]$", re.DOTALL)


def comment_text(comments: list[str]) -> str:
    """What a run of comments says, in order: markers, rulers, and directives to tools taken out."""
    lines = []
    for comment in comments:
        for line in _without_block_end(comment).splitlines():
            text = _LINE_MARKER.sub("", line).rstrip()
            if not _DIRECTIVE.match(text):
                lines.append("" if _RULER.match(text) and not text.strip().startswith("```") else text)
    return "\n".join(lines).strip("\n").strip()


def _without_block_end(comment: str) -> str:
    """Without `**/` at the end; no regular expression, since those look again from every blank of a long run."""
    text = comment.rstrip()
    return text[:-1].rstrip("*").rstrip() if text.endswith("*/") else text


def docstring_text(literal: str) -> str:
    """What a Python string literal says, indentation removed; empty for bytes and f-strings, which document nothing."""
    match = _PYTHON_STRING.match(literal)
    if match is None or set(match[1].lower()) & set("bft"):
        return ""
    return inspect.cleandoc(match[3]).strip()


def attribute_text(attribute: str) -> str:
    """What `@doc "..."`, `-doc "...".` or `#[doc = "..."]` says; empty for `@doc false` and `@doc since: "1.2"`."""
    rust = _RUST_ATTRIBUTE.match(attribute)
    if rust is not None:
        return rust[1].strip()
    _, _, value = attribute.partition("doc")
    match = _ATTRIBUTE_STRING.match(value.strip().removesuffix(".").removeprefix("(").removesuffix(")").strip())
    return inspect.cleandoc(match[2]).strip() if match is not None else ""
