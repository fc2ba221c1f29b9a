"""One fixture per language, and the rules that hold for all of them."""

import pytest

from embed_assets.snippets.extract import Definition, definition_id_of, extract, snippet_id_of
from embed_assets.snippets.languages import LANGUAGES

Expected = tuple[str, str, str, str]
"""Kind, `scope.name` with the disambiguator, doc, code."""

FIXTURES: dict[str, tuple[str, list[Expected]]] = {
    "python": (
        '''import os

@cached
# why
@other(1)
async def fetch(url: str) -> int:
    """Fetches it.

    And waits.
    """
    def inner(): return 1
    return inner()

class Cart(Base):
    """Holds items."""
    size = 1

    def empty(self):
        "Only a doc."

    @property
    def total(self): return 1
    @total.setter
    def total(self, value): self.x = value
''',
        [
            (
                "function",
                "fetch",
                "Fetches it.\n\nAnd waits.",
                "@cached\n# why\n@other(1)\nasync def fetch(url: str) -> int:\n    def inner(): return 1\n    return inner()",
            ),
            ("function", "fetch.inner", "", "def inner(): return 1"),
            ("class", "Cart", "Holds items.", "class Cart(Base):\n    size = 1"),
            ("method", "Cart.empty", "Only a doc.", "def empty(self):\n    ..."),
            ("method", "Cart.total", "", "@property\ndef total(self): return 1"),
            ("method", "Cart.total#2", "", "@total.setter\ndef total(self, value): self.x = value"),
        ],
    ),
    "rust": (
        """/// Doubles.
/// Twice.
#[inline]
pub fn double<T>(x: T) -> T { x }
// not a doc
pub struct Stack { a: u8 }
impl<T> std::fmt::Display for Stack<T> {
    #[doc = "Shows."]
    fn fmt(&self) -> u8 { 1 }
}
impl fmt::Debug for Stack { fn fmt(&self) {} }
trait Shape { fn area(&self); fn name(&self) -> u8 { 0 } }
mod tests { #[test] fn works() {} }
""",
        [
            ("function", "double", "Doubles.\nTwice.", "#[inline]\npub fn double<T>(x: T) -> T { x }"),
            ("class", "Stack", "", "pub struct Stack { a: u8 }"),
            ("method", "Stack.fmtstd::fmt::Display", "Shows.", "fn fmt(&self) -> u8 { 1 }"),
            ("method", "Stack.fmtfmt::Debug", "", "fn fmt(&self) {}"),
            ("class", "Shape", "", "trait Shape { fn area(&self);  }"),
            ("method", "Shape.name", "", "fn name(&self) -> u8 { 0 }"),
            ("function", "tests.works", "", "#[test] fn works() {}"),
        ],
    ),
    "elixir": (
        '''defmodule Shop.Cart do
  @moduledoc """
  Holds items.
  """
  use GenServer

  @doc """
  Adds one.
  """
  @doc since: "1.0"
  @spec add(t, t) :: t
  def add(cart, item \\\\ nil)
  # the empty one
  def add([], item) when is_map(item) do
    [item]
  end
  def add(cart, item), do: [item | cart]

  @doc false
  def hidden, do: 1
  @timeout 5
  defp wait(x), do: x
  defmacro a <~> b do
    a
  end
end
''',
        [
            (
                "module",
                "Shop.Cart",
                "Holds items.",
                "defmodule Shop.Cart do\n  use GenServer\n\n  # the empty one\n\n  @timeout 5\nend",
            ),
            (
                "function",
                "Shop.Cart.add/2",
                "Adds one.",
                "@spec add(t, t) :: t\ndef add(cart, item \\\\ nil)\n\ndef add([], item) when is_map(item) do\n  [item]\nend"
                "\n\ndef add(cart, item), do: [item | cart]",
            ),
            ("function", "Shop.Cart.hidden/0", "", "def hidden, do: 1"),
            ("function", "Shop.Cart.wait/1", "", "defp wait(x), do: x"),
            ("function", "Shop.Cart.<~>/2", "", "defmacro a <~> b do\n  a\nend"),
        ],
    ),
    "erlang": (
        '''%%%% Shopping.
-module(cart).

%% @doc Adds one.
%% To the front.
-spec add(a(), b()) -> c().
add([], X) when is_list(X) ->
    [X];
% the long way
add(C, X) ->
    F = fun(Y) -> Y end,
    [F(X) | C].

-doc """
Waits.
""".
wait() -> ok.
add(X) -> X.
-record(cart, {items, owner}).
''',
        [
            (
                "function",
                "add/2",
                "Adds one.\nTo the front.",
                "-spec add(a(), b()) -> c().\nadd([], X) when is_list(X) ->\n    [X];\n\n"
                "add(C, X) ->\n    F = fun(Y) -> Y end,\n    [F(X) | C].",
            ),
            ("function", "wait/0", "Waits.", "wait() -> ok."),
            ("function", "add/1", "", "add(X) -> X."),
            ("class", "cart", "", "-record(cart, {items, owner})."),
        ],
    ),
    "typescript": (
        """/** Waits. */
export const wait = async (ms: number): Promise<void> => { await ms }
// Holds items.
export default class Cart<T> extends Base {
  /** Adds. */
  @log()
  add(item: string): void { return }
  private size = 2
}
export function over(a: string): void
export function over(a: any) { }
const table = { get() { return 1 }, id: (x) => x }
export interface Item { name: string }
""",
        [
            ("function", "wait", "Waits.", "export const wait = async (ms: number): Promise<void> => { await ms }"),
            ("class", "Cart", "", "export default class Cart<T> extends Base {\n  private size = 2\n}"),
            ("method", "Cart.add", "Adds.", "@log()\nadd(item: string): void { return }"),
            ("function", "over", "", "export function over(a: any) { }"),
            ("function", "table.get", "", "get() { return 1 }"),
            ("class", "Item", "", "export interface Item { name: string }"),
        ],
    ),
    "tsx": (
        "/** A button. */\nexport function Button(p: Props) { return <b>{p.x}</b> }\n",
        [("function", "Button", "A button.", "export function Button(p: Props) { return <b>{p.x}</b> }")],
    ),
    "javascript": (
        """/** Parses. */
module.exports.parse = function (x) { return 1 };
function* walk() {}
class Cart { static #size = () => 1; get x() { return 1 } }
""",
        [
            ("function", "parse", "Parses.", "module.exports.parse = function (x) { return 1 };"),
            ("function", "walk", "", "function* walk() {}"),
            ("class", "Cart", "", "class Cart { ;  }"),
            ("method", "Cart.#size", "", "static #size = () => 1"),
            ("method", "Cart.x", "", "get x() { return 1 }"),
        ],
    ),
    "go": (
        """package shop

import "fmt"

// Stack is
// last in, first out.
type Stack[T any] struct { a int }

// Push adds.
//go:noinline
func (s *Stack[T]) Push(x T) { }

// far away

func main() {}
""",
        [
            ("class", "Stack", "Stack is\nlast in, first out.", "type Stack[T any] struct { a int }"),
            ("method", "Stack.Push", "Push adds.", "func (s *Stack[T]) Push(x T) { }"),
            ("function", "main", "", "func main() {}"),
        ],
    ),
    "java": (
        """package shop;
/** Holds items. */
@Entity
public class Cart<T> {
  int x;
  /**
   * Adds.
   * @param a what
   */
  @Override
  public void add(int a) { }
  void add(String a) { }
  abstract void none();
  Cart() {}
}
""",
        [
            ("class", "Cart", "Holds items.", "@Entity\npublic class Cart<T> {\n  int x;\n  abstract void none();\n}"),
            ("method", "Cart.add", "Adds.\n@param a what", "@Override\npublic void add(int a) { }"),
            ("method", "Cart.add#2", "", "void add(String a) { }"),
            ("method", "Cart.Cart", "", "Cart() {}"),
        ],
    ),
    "c": (
        "/* Adds. */\nstatic int *add(int a) { return 0; }\nint prototype(int);\nstruct cart { int a; };\n",
        [
            ("function", "add", "Adds.", "static int *add(int a) { return 0; }"),
            ("class", "cart", "", "struct cart { int a; }"),
        ],
    ),
    "cpp": (
        """// Finds.
template<class T> T* shop::Cart<T>::find(int a) const { return 0; }
namespace shop {
class Cart {
  /// Adds.
  int add() { return 1; }
  int size;
};
}
""",
        [
            (
                "method",
                "shop.Cart.find",
                "Finds.",
                "template<class T> T* shop::Cart<T>::find(int a) const { return 0; }",
            ),
            ("class", "shop.Cart", "", "class Cart {\n  int size;\n}"),
            ("method", "shop.Cart.add", "Adds.", "int add() { return 1; }"),
        ],
    ),
    "csharp": (
        "namespace Shop {\n/// <summary>Holds.</summary>\npublic class Cart {\n  /// Adds.\n  public int Add(int a) => 1;\n}\n}\n",
        [
            ("class", "Shop.Cart", "<summary>Holds.</summary>", "public class Cart {\n}"),
            ("method", "Shop.Cart.Add", "Adds.", "public int Add(int a) => 1;"),
        ],
    ),
    "ruby": (
        "# Holds\n# items.\nclass Cart < Base\n  attr_reader :x\n  # Adds.\n  def add(a)\n    1\n  end\n  def self.make; end\nend\n",
        [
            ("class", "Cart", "Holds\nitems.", "class Cart < Base\n  attr_reader :x\nend"),
            ("method", "Cart.add", "Adds.", "def add(a)\n  1\nend"),
            ("method", "Cart.make", "", "def self.make; end"),
        ],
    ),
    "php": (
        "<?php\n/** Holds. */\nclass Cart {\n  /** Adds. */\n  public function add($a) { return 1; }\n}\nfunction f() {}\n",
        [
            ("class", "Cart", "Holds.", "class Cart {\n}"),
            ("method", "Cart.add", "Adds.", "public function add($a) { return 1; }"),
            ("function", "f", "", "function f() {}"),
        ],
    ),
    "scala": (
        "/** Holds. */\nobject Cart {\n  /** Adds. */\n  def add(a: Int): Int = a + 1\n  val x = 1\n}\n",
        [
            ("class", "Cart", "Holds.", "object Cart {\n  val x = 1\n}"),
            ("method", "Cart.add", "Adds.", "def add(a: Int): Int = a + 1"),
        ],
    ),
    "kotlin": (
        "/** Holds. */\nclass Cart(val x: Int) {\n  /** Adds. */\n  fun add(): Int = 1\n}\nfun String.ext() = 1\n",
        [
            ("class", "Cart", "Holds.", "class Cart(val x: Int) {\n}"),
            ("method", "Cart.add", "Adds.", "fun add(): Int = 1"),
            ("function", "ext", "", "fun String.ext() = 1"),
        ],
    ),
    "swift": (
        "/// Holds.\nextension Cart {\n  /// Adds.\n  func add(b: Int) -> Int { return 1 }\n  init() {}\n}\n",
        [
            ("class", "Cart", "Holds.", "extension Cart {\n}"),
            ("method", "Cart.add", "Adds.", "func add(b: Int) -> Int { return 1 }"),
            ("method", "Cart.init", "", "init() {}"),
        ],
    ),
}


def qualified(definition: Definition) -> str:
    return ".".join(part for part in (definition.scope, definition.name) if part) + definition.disambiguator


@pytest.mark.parametrize("language", sorted(FIXTURES))
def test_definitions_of_each_language(language: str) -> None:
    source, expected = FIXTURES[language]
    found = [(one.kind, qualified(one), one.doc, one.code) for one in extract(source.encode(), language)]
    assert found == expected


def test_every_language_has_a_fixture() -> None:
    assert sorted(FIXTURES) == sorted(language.name for language in LANGUAGES)


@pytest.mark.parametrize("language", sorted(FIXTURES))
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(language: str) -> None:
    source, _ = FIXTURES[language]
    windows = b"\xef\xbb\xbf" + source.replace("\n", "\r\n").encode()
    assert extract(windows, language) == extract(source.encode(), language)


@pytest.mark.parametrize("language", sorted(FIXTURES))
def test_code_never_holds_its_own_documentation(language: str) -> None:
    for one in extract(FIXTURES[language][0].encode(), language):
        assert not one.doc or one.doc.splitlines()[0] not in one.code


def test_signature_is_the_head_on_one_line() -> None:
    source = b"def pay(\n    cart: Cart,\n    tax: float = 0.2,\n) -> Receipt:\n    return cart\n"
    assert extract(source, "python")[0].signature == "def pay( cart: Cart, tax: float = 0.2, ) -> Receipt"
    assert extract(b"fn a(x: u8) -> u8 where u8: Copy { x }", "rust")[0].signature == "fn a(x: u8) -> u8 where u8: Copy"
    elixir = extract(b"defmodule A do\n  def a(x), do: x\nend", "elixir")
    assert [one.signature for one in elixir] == ["defmodule A", "def a(x)"]


@pytest.mark.parametrize(
    ("language", "source", "signature"),
    [
        ("elixir", "defmodule A do\n  def a(%{b: c}), do: c\nend", "def a(%{b: c})"),
        ("elixir", "defmodule A do\n  def a(\n        b,\n        c\n      ),\n      do: b\nend", "def a( b, c )"),
        ("elixir", "defmodule A do\n  defp a(b) when b in [:c] do\n    b\n  end\nend", "defp a(b) when b in [:c]"),
        ("elixir", "defmodule A do\n  defguard a(b) when is_map(b)\nend", "defguard a(b) when is_map(b)"),
        (
            "python",
            "def a(  # noqa: X\n    b: str = '#',\n) -> int:  # why\n    # because\n    return b\n",
            "def a( b: str = '#', ) -> int",
        ),
        ("typescript", "function a(b: number /* grams */): void { return }", "function a(b: number ): void"),
        ("rust", "pub struct A(u8, B);", "pub struct A(u8, B)"),
        ("ruby", "class A < B\n  c :d\nend", "class A < B"),
        ("ruby", "def a(b); end", "def a(b)"),
        ("scala", "case class A(\n  b: Int) extends C", "case class A( b: Int) extends C"),
        ("kotlin", "@B(c = 1)\ndata class A(val b: Int) : C {\n}", "@B(c = 1) data class A(val b: Int) : C"),
        ("erlang", "-record(a, {b, c}).", "-record(a, {b, c})."),
        ("erlang", "a(X) when is_list(X) ->\n    X.", "a(X) when is_list(X)"),
        ("rust", "fn a(\n    // grams\n    b: u8,\n) -> u8 { b }", "fn a( b: u8, ) -> u8"),
    ],
)
def test_signatures_hold_patterns_and_no_comments(language: str, source: str, signature: str) -> None:
    assert extract(source.encode(), language)[-1].signature == signature


@pytest.mark.parametrize(
    ("language", "source", "names"),
    [
        ("typescript", "export const table = { cells: { get() { return 1 } }, put: (x) => { x } }", ["table.cells.get", "table.put"]),
        ("javascript", "const a = { b() { return 1 } }, c = () => { return 2 }", ["a.b", "c"]),
        ("java", "class A { B b = new B<C>() { int c() { return 1; } }; }", ["A", "A.B.c"]),
        ("kotlin", "class A {\n companion object B {\n  fun c() = 1\n }\n}", ["A", "A.B.c"]),
        ("cpp", "template<> struct a<int> { auto operator()(int b) -> int { return b; } };", ["a<int>", "a<int>.operator()"]),
        ("java", "enum A { X { int c() { return 1; } }, Y { int c() { return 2; } } }", ["A", "A.X.c", "A.Y.c"]),
    ],
)  # fmt: skip
def test_what_has_no_declaration_of_its_own_still_names_what_it_holds(
    language: str, source: str, names: list[str]
) -> None:
    assert [qualified(one) for one in extract(source.encode(), language)] == names


def test_lines_count_from_one_and_leave_the_doc_comment_out() -> None:
    first, second = extract(b"/// Doc.\n#[a]\nfn a() {\n}\n\nfn b() {}", "rust")
    assert (first.start_line, first.end_line) == (2, 4)
    assert (second.start_line, second.end_line) == (6, 6)


def test_the_next_ones_doc_is_not_in_the_code() -> None:
    source = b"class A {\n  def b: Int =\n    1\n    // of b\n\n  /** Of c. */\n  // and more\n  def c = 2\n}\n"
    _, first, second = extract(source, "scala")
    assert first.code == "def b: Int =\n  1\n  // of b"
    assert (first.start_line, first.end_line) == (2, 4)
    assert second.code == "def c = 2"


def test_what_a_scope_inside_a_class_holds_is_not_in_the_code_of_the_class() -> None:
    first, *_ = extract(b"enum A { X { int c() { return 1; } }, Y; int d() { return 2; } }", "java")
    assert first.code == "enum A { X {  }, Y;  }"


def test_latin_1_is_read_where_it_is_no_utf_8() -> None:
    (definition,) = extract('def größe():\n    "Maß"\n    return 1\n'.encode("latin-1"), "python")
    assert (definition.name, definition.doc) == ("größe", "Maß")


def test_a_comment_behind_other_code_documents_nothing_below() -> None:
    (definition,) = extract(b"package a\nvar x = 1 // counts\nfunc f() {}\n", "go")
    assert definition.doc == ""


def test_directives_to_tools_are_no_documentation() -> None:
    (definition,) = extract(
        b"// eslint-disable-next-line no-x\n/** @ts-ignore */\nfunction f() { return 1 }\n", "javascript"
    )
    assert definition.doc == ""


def test_bytes_and_f_strings_document_nothing_and_stay() -> None:
    (definition,) = extract(b'def f():\n    f"""{x}"""\n    return 1\n', "python")
    assert definition.doc == ""
    assert 'f"""{x}"""' in definition.code


def test_ids_follow_place_and_content() -> None:
    first, second = extract(b"def a():\n    return 1\n\ndef a():\n    return  1\n", "python")
    assert definition_id_of("r", "a.py", first) != definition_id_of("r", "a.py", second)
    assert definition_id_of("r", "a.py", first) != definition_id_of("r", "b.py", first)
    assert snippet_id_of("python", first.code) == snippet_id_of("python", second.code)
    assert snippet_id_of("python", first.code) != snippet_id_of("ruby", first.code)


def test_an_id_outlives_changes_elsewhere_in_the_file() -> None:
    before = extract(b"class A:\n    def f(self): return 1\n", "python")[-1]
    after = extract(b"import os\n\ndef g(): pass\n\nclass A:\n    x = 1\n    def f(self): return 2\n", "python")[-1]
    assert definition_id_of("r", "p", before) == definition_id_of("r", "p", after)
