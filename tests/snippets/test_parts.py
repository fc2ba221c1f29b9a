"""Long functions taken apart: nothing lost, nothing too large, along the syntax tree."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed_assets.snippets.extract import Definition, extract
from embed_assets.snippets.parse import parse
from embed_assets.snippets.parts import PART_SIZE, joined


def squeezed(code: str) -> str:
    return "".join(code.split())


def long_function(statements: int, words: int = 12) -> str:
    lines = [
        f"    value_{number} = {' + '.join(f'term_{number}_{word}' for word in range(words))}"
        for number in range(statements)
    ]
    return "def long(first):\n" + "\n".join(lines) + "\n"


def only(source: str, language: str, name: str) -> Definition:
    return next(one for one in extract(source.encode(), language) if one.name == name)


def test_a_short_function_has_no_parts() -> None:
    assert only("def short(x):\n    return x\n", "python", "short").parts == ()
    assert only(long_function(3), "python", "long").parts == ()


@given(statements=st.integers(1, 60), words=st.integers(1, 60))
def test_parts_are_the_code_and_fit(statements: int, words: int) -> None:
    found = only(long_function(statements, words), "python", "long")
    if len(squeezed(found.code)) <= PART_SIZE:
        assert found.parts == ()
        return
    assert squeezed("".join(found.parts)) == squeezed(found.code)
    assert len(found.parts) > 1
    sizes = [len(squeezed(part)) for part in found.parts]
    assert max(sizes) <= PART_SIZE
    assert all(one + two > PART_SIZE for one, two in pairwise(sizes)), "neighbours that fit are joined"


def test_statements_stay_whole_where_they_fit() -> None:
    found = only(long_function(40), "python", "long")
    for part in found.parts[1:]:
        assert part.startswith("value_"), "a part begins where a statement does"


def test_what_has_no_children_stays_whole_however_long() -> None:
    found = only(f'def table():\n    return "{"x" * 5 * PART_SIZE}"\n', "python", "table")
    assert max(len(part) for part in found.parts) >= 5 * PART_SIZE
    assert squeezed("".join(found.parts)) == squeezed(found.code)


def test_no_part_holds_the_doc_and_the_doc_takes_no_room() -> None:
    code = long_function(40)
    documented = code.replace("(first):\n", f'(first):\n    """{"Explains it at length. " * 60}"""\n', 1)
    assert only(documented, "python", "long").parts == only(code, "python", "long").parts


def test_decorators_and_what_only_wraps_belong_to_the_first_part() -> None:
    found = only(f"@cached(1)\n{long_function(40)}", "python", "long")
    assert found.parts[0].startswith("@cached(1)\ndef long")


def test_code_inside_a_class_is_moved_to_the_margin() -> None:
    body = "".join(f"    {line}\n" for line in long_function(40).splitlines())
    assert only(f"class Holder:\n{body}", "python", "long").parts == only(long_function(40), "python", "long").parts


def test_clauses_of_one_function_are_joined_while_they_fit() -> None:
    clauses = "\n".join(f"  def pick(:key_{number}), do: {{:found, {number}}}" for number in range(60))
    found = only(f"defmodule Picks do\n{clauses}\nend\n", "elixir", "pick")
    assert squeezed("".join(found.parts)) == squeezed(found.code)
    sizes = [len(squeezed(part)) for part in found.parts]
    assert max(sizes) <= PART_SIZE < min(one + two for one, two in pairwise(sizes))
    assert all(part.startswith("def pick(") for part in found.parts)


def test_parts_hold_no_address() -> None:
    source = long_function(40) + "    return 'ada@lovelace.org'\n"
    [found] = parse(source.encode(), "python").definitions
    assert "EMAIL" in found.parts[-1] and "ada@" not in "".join(found.parts)


@given(sizes=st.lists(st.integers(1, 2 * PART_SIZE), max_size=30))
def test_joining_loses_nothing(sizes: list[int]) -> None:
    parts = ["x" * size for size in sizes]
    together = joined(parts)
    if together:
        assert "".join(together).replace("\n", "") == "".join(parts)
        assert len(together) > 1
    else:
        assert sum(sizes) <= PART_SIZE or len(sizes) == 1


SOURCES = {
    "go": ("func long() int {\n%s\treturn total\n}\n", "\ttotal = combine(total, %d, other, another)\n"),
    "rust": ("fn long() -> u8 {\n%s    total\n}\n", "    total = combine(total, %d, other, another);\n"),
    "java": (
        "class A {\n  int long_() {\n%s    return total;\n  }\n}\n",
        "    total = combine(total, %d, other, another);\n",
    ),
    "typescript": (
        "const long = (total) => {\n%s  return total;\n};\n",
        "  total = combine(total, %d, other, another);\n",
    ),
    "ruby": ("def long\n%send\n", "  total = combine(total, %d, other, another)\n"),
    "scala": (
        "object A {\n  def long(): Int = {\n%s    total\n  }\n}\n",
        "    total = combine(total, %d, other, another)\n",
    ),
    "elixir": (
        "defmodule A do\n  def long(total) do\n%s  end\nend\n",
        "    total = combine(total, %d, other, another)\n",
    ),
    "cpp": ("int Holder::long_() {\n%s  return total;\n}\n", "  total = combine(total, %d, other, another);\n"),
}


@pytest.mark.parametrize("language", SOURCES)
def test_functions_of_other_languages_are_taken_apart(language: str) -> None:
    frame, line = SOURCES[language]
    definitions = extract((frame % "".join(line % number for number in range(60))).encode(), language)
    found = next(one for one in definitions if one.name.startswith("long"))
    assert squeezed("".join(found.parts)) == squeezed(found.code)
    assert 3 <= len(found.parts) <= 6
    assert max(len(squeezed(part)) for part in found.parts) <= PART_SIZE


def test_deeply_nested_calls_are_taken_apart_in_bounded_time() -> None:
    deep = "f(" * 1_900 + "x" + ")" * 1_900
    found = only(f"def deep(x):\n    return {deep}\n", "python", "deep")
    assert squeezed("".join(found.parts)) == squeezed(found.code)
