"""What a definition is called, where the grammar's `name` is not yet the name.

C and C++ hide it in declarators, Elixir in the arguments of the call to `def`, Erlang in the first clause. Knows
nothing of docs.
"""

import re
from collections.abc import Callable, Mapping

from tree_sitter import Node

MAX_NAME = 200
DECLARATOR_DEPTH = 32


def text_of(node: Node | None) -> str:
    """The node's source on one line."""
    return " ".join((node.text or b"").decode("utf-8", "replace").split()) if node is not None else ""


def first_child(node: Node | None) -> Node | None:
    """The first named child, if there is one."""
    return node.named_child(0) if node is not None and node.named_child_count else None


def plain_name(node: Node) -> tuple[str, str, str]:
    """Name, owner and disambiguator of a definition whose `name` is the name."""
    return text_of(node).strip("\"'`")[:MAX_NAME], "", ""


def declared_name(node: Node) -> tuple[str, str, str]:
    """C and C++: `*Shape::area(int x) const` -> (`area`, `Shape`, ``)."""
    current: Node | None = node
    owners: list[str] = []
    for _ in range(DECLARATOR_DEPTH):
        if current is None:
            break
        if current.type == "qualified_identifier":
            owners.append(type_name(text_of(current.child_by_field_name("scope"))))
            current = current.child_by_field_name("name")
        elif current.type == "template_function":
            current = current.child_by_field_name("name")
        else:
            inner: Node | None = current.child_by_field_name("declarator")
            if inner is None and current.type in ("reference_declarator", "parenthesized_declarator"):
                inner = first_child(current)
            if inner is None:
                break
            current = inner
    return text_of(current)[:MAX_NAME], ".".join(owner for owner in owners if owner), ""


def elixir_name(node: Node) -> tuple[str, str, str]:
    """Elixir: the arguments of `def fetch(repo, id) when is_integer(id)` -> (`fetch`, ``, `/2`)."""
    head: Node | None = first_child(node)
    if head is not None and head.type == "binary_operator" and _operator(head) == "when":
        head = head.child_by_field_name("left")
    if head is None:
        return "", "", ""
    if head.type == "call":
        target, arguments = head.child_by_field_name("target"), _arguments(head)
        arity = sum(1 for child in arguments.named_children if child.type != "comment") if arguments is not None else 0
        return text_of(target)[:MAX_NAME], "", f"/{arity}"
    if head.type == "binary_operator":
        return _operator(head), "", "/2"
    if head.type == "unary_operator":
        return _operator(head), "", "/1"
    return text_of(head)[:MAX_NAME], "", "/0" if head.type == "identifier" else ""


def erlang_name(node: Node) -> tuple[str, str, str]:
    """Erlang: the clause `add([], X) when is_list(X) -> X` -> (`add`, ``, `/2`)."""
    arguments = node.child_by_field_name("args")
    arity = sum(1 for child in arguments.named_children if child.type != "comment") if arguments is not None else 0
    return text_of(node.child_by_field_name("name")).strip("'")[:MAX_NAME], "", f"/{arity}"


def module_name(node: Node) -> tuple[str, str, str]:
    """Elixir: the arguments of `defimpl Enumerable, for: Stream` -> (`Enumerable for Stream`, ``, ``)."""
    first = first_child(node)
    implemented = re.search(r"\bfor:\s*([\w.\[\], ]+)", text_of(node))
    name = text_of(first)
    return (f"{name} for {implemented[1].strip()}" if implemented else name)[:MAX_NAME], "", ""


def type_name(text: str) -> str:
    """`&'a mut Stack<T>` -> `Stack`, `(c *Context)` -> `Context`, `std::io::Error` -> `std::io::Error`."""
    bare = re.sub(r"<[^<>]*>|\[[^\[\]]*\]", "", re.sub(r"<[^<>]*>", "", text))
    words = re.findall(r"[A-Za-z_$][\w$]*(?:(?:::|\.)[A-Za-z_$][\w$]*)*", re.sub(r"'\w+", "", bare))
    kept = [word for word in words if word not in ("mut", "dyn", "impl", "const", "where")]
    return kept[-1][:MAX_NAME] if kept else text.strip()[:MAX_NAME]


NameRule = Callable[[Node], tuple[str, str, str]]
FUNCTION_NAMES: Mapping[str, NameRule] = {
    "c": declared_name,
    "cpp": declared_name,
    "elixir": elixir_name,
    "erlang": erlang_name,
}
"""Language -> rule for functions; `plain_name` where there is none."""
OTHER_NAMES: Mapping[str, NameRule] = {"elixir": module_name}
"""Language -> rule for classes, modules and scopes."""


def name_rule(language: str, role: str) -> NameRule:
    return (FUNCTION_NAMES if role == "function" else OTHER_NAMES).get(language, plain_name)


def _operator(node: Node) -> str:
    return text_of(node.child_by_field_name("operator"))


def _arguments(call: Node) -> Node | None:
    return next((child for child in call.named_children if child.type == "arguments"), None)
