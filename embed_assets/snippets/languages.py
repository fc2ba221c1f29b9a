"""The table of languages: one entry each, from file extension to what counts as a definition and as its doc.

A query in tree-sitter's own language finds the nodes; its captures say what they are:

    @function @class @module    a definition (a function inside a class, implementation or trait is a method)
    @scope @namespace           lend their name to what they enclose, and are no definitions themselves (what a
                                scope encloses are methods: Rust's `impl`)
    @wrapper                    encloses one definition and belongs to it: `export`, `template`
    @lead                       stands in front of a definition and belongs to it: decorators, attributes
    @comment                    a comment
    @name @body                 of the definition in the same match
    @owner                      names a scope that does not enclose the definition: Go's receiver
    @qualifier                  tells apart equal names of one scope: the trait of a Rust implementation

To add a language: its grammar wheel in pyproject.toml, an entry here, a fixture in tests/snippets/test_extract.py.
Knows nothing of git and of files' contents.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

DocRule = Literal["comments", "docstring", "attributes"]


@dataclass(frozen=True, kw_only=True)
class Language:
    """One language: which files, which grammar, which nodes."""

    name: str
    extensions: tuple[str, ...]
    grammar: str
    """Python module of the grammar wheel."""
    grammar_function: str = "language"
    query: str
    docs: DocRule = "comments"
    """Where documentation stands: in comments above, in a string inside, in attributes above."""
    doc_comment: str = r"/\*\*(?!/)"
    """Regular expression that the beginning of a documenting comment matches."""
    doc_lead: str = ""
    """Regular expression that the beginning of a documenting attribute matches."""
    inner_doc: str = ""
    """Regular expression that a `@lead` matches which documents what encloses it."""
    leads: str = ""
    """Regular expression that the beginning of a `@lead` must match; every one belongs when empty."""
    needs_body: bool = True
    """Leave out functions without a body: prototypes, abstract methods, overload signatures."""
    test_paths: str = r"(^|/)(tests?|specs?)/"
    """Regular expression that the paths of tests match."""
    test_scopes: str = ""
    """Regular expression that the scope or name of a test outside of `test_paths` matches."""
    merges_clauses: bool = False
    """Definitions of one name and arity are clauses of one."""

    @property
    def wheel(self) -> str:
        """Name of the distribution that holds the grammar."""
        return self.grammar.partition(".")[0].replace("_", "-")


_SCRIPT_VALUE = (
    "[(arrow_function body: (_) @body) (function_expression body: (_) @body) (generator_function body: (_) @body)]"
)
_SCRIPT_BLOCK = "[(arrow_function body: (statement_block) @body) (function_expression body: (_) @body)]"
"""Of a property: `{ id: (x) => x.id }` is data more than a definition."""
_SCRIPT_QUERY = f"""
(comment) @comment
(function_declaration name: (_) @name body: (_) @body) @function
(generator_function_declaration name: (_) @name body: (_) @body) @function
(method_definition name: (_) @name body: (_) @body) @function
(variable_declarator name: (identifier) @name value: {_SCRIPT_VALUE}) @function
(assignment_expression left: (member_expression property: (_) @name) right: {_SCRIPT_VALUE}) @function
(pair key: (property_identifier) @name value: {_SCRIPT_BLOCK}) @function
(class_declaration name: (_) @name body: (_) @body) @class
(variable_declarator name: (identifier) @name value: (object)) @namespace
(pair key: (property_identifier) @name value: (object)) @namespace
(export_statement declaration: [(function_declaration) (generator_function_declaration) (class_declaration)]) @wrapper
(export_statement declaration: (_ (variable_declarator value: [(arrow_function) (function_expression)]))) @wrapper
(lexical_declaration (variable_declarator value: [(arrow_function) (function_expression)])) @wrapper
(variable_declaration (variable_declarator value: [(arrow_function) (function_expression)])) @wrapper
(expression_statement (assignment_expression right: [(arrow_function) (function_expression)])) @wrapper
"""
_JAVASCRIPT_QUERY = f"""{_SCRIPT_QUERY}
(field_definition property: (_) @name value: {_SCRIPT_VALUE}) @function
(decorator) @lead
"""
_TYPESCRIPT_QUERY = f"""{_SCRIPT_QUERY}
(public_field_definition name: (_) @name value: {_SCRIPT_VALUE}) @function
(abstract_class_declaration name: (_) @name body: (_) @body) @class
(interface_declaration name: (_) @name body: (_) @body) @class
(enum_declaration name: (_) @name body: (_) @body) @class
(export_statement declaration: [(abstract_class_declaration) (interface_declaration) (enum_declaration)]) @wrapper
(internal_module name: (_) @name) @namespace
(decorator) @lead
"""
_SCRIPT_TESTS = r"(^|/)(tests?|__tests__|specs?|e2e|cypress)/|\.(test|spec|bench|test-d)\.[cm]?[jt]sx?$"
_C_QUERY = """
(comment) @comment
(function_definition declarator: (_) @name body: (_) @body) @function
(struct_specifier name: (_) @name body: (_) @body) @class
(union_specifier name: (_) @name body: (_) @body) @class
(enum_specifier name: (_) @name body: (_) @body) @class
(type_definition type: (struct_specifier name: (_) body: (_))) @wrapper
"""
_C_TESTS = r"(^|/)(tests?|unittests?|testing)/|(^|/)test_[^/]*$|[_-]?(test|unittest)\.\w+$"

LANGUAGES: tuple[Language, ...] = (
    Language(
        name="python",
        extensions=(".py", ".pyi"),
        grammar="tree_sitter_python",
        query="""
            (comment) @comment
            (decorator) @lead
            (function_definition name: (_) @name body: (_) @body) @function
            (class_definition name: (_) @name body: (_) @body) @class
            """,
        docs="docstring",
        doc_comment=r"(?!)",
        test_paths=r"(^|/)(tests?|testing|testsuite)/|(^|/)(test_[^/]*|[^/]*_test|conftest)\.pyi?$",
    ),
    Language(
        name="rust",
        extensions=(".rs",),
        grammar="tree_sitter_rust",
        query="""
            [(line_comment) (block_comment)] @comment
            (attribute_item) @lead
            (function_item name: (_) @name body: (_) @body) @function
            (function_signature_item name: (_) @name) @function
            (struct_item name: (_) @name) @class
            (enum_item name: (_) @name body: (_) @body) @class
            (union_item name: (_) @name body: (_) @body) @class
            (trait_item name: (_) @name body: (_) @body) @class
            (impl_item trait: (_)? @qualifier type: (_) @name) @scope
            (mod_item name: (_) @name body: (_) @body) @namespace
            """,
        doc_comment=r"///(?!/)|/\*\*(?![*/])",
        doc_lead=r"#\[doc\s*=",
        test_paths=r"(^|/)(tests|benches|test_?(utils?|helpers?|support))/|(^|[/_])(tests?|test_?(utils?|helpers?|support))\.rs$",
        test_scopes=r"(^|\.)(tests?|testutil)(\.|$)",
    ),
    Language(
        name="elixir",
        extensions=(".ex", ".exs"),
        grammar="tree_sitter_elixir",
        query="""
            (comment) @comment
            (unary_operator operator: "@" operand: (call target: (identifier))) @lead
            (call target: (identifier) @keyword (arguments) @name (do_block)? @body
                (#any-of? @keyword "def" "defp" "defmacro" "defmacrop" "defguard" "defguardp" "defdelegate"
                    "defn" "defnp")
            ) @function
            (call target: (identifier) @keyword (arguments) @name (do_block) @body
                (#any-of? @keyword "defmodule" "defprotocol" "defimpl")
            ) @module
            """,
        docs="attributes",
        needs_body=False,
        doc_comment=r"(?!)",
        doc_lead=r"@doc\b",
        inner_doc=r"@moduledoc\b",
        leads=r"@(doc|spec|impl|deprecated|decorate|tag|dialyzer)\b",
        test_paths=r"(^|/)(test|integration_test)/|_test\.exs$",
        merges_clauses=True,
    ),
    Language(
        name="erlang",
        extensions=(".erl", ".hrl"),
        grammar="tree_sitter_language_pack.bindings.erlang",
        query="""
            (comment) @comment
            [(spec) (wild_attribute)] @lead
            (fun_decl clause: (function_clause body: (_) @body) @name) @function
            (record_decl name: (_) @name) @class
            """,
        docs="attributes",
        doc_comment=r"%",
        doc_lead=r"-\s*doc\b",
        leads=r"-\s*(doc|spec|deprecated|dialyzer)\b",
        test_paths=r"(^|/)(test|eunit)/|_(SUITE|tests?)\.erl$",
        test_scopes=r"_test_?$",
        merges_clauses=True,
    ),
    Language(
        name="typescript",
        extensions=(".ts", ".mts", ".cts"),
        grammar="tree_sitter_typescript",
        grammar_function="language_typescript",
        query=_TYPESCRIPT_QUERY,
        test_paths=_SCRIPT_TESTS,
    ),
    Language(
        name="tsx",
        extensions=(".tsx",),
        grammar="tree_sitter_typescript",
        grammar_function="language_tsx",
        query=_TYPESCRIPT_QUERY,
        test_paths=_SCRIPT_TESTS,
    ),
    Language(
        name="javascript",
        extensions=(".js", ".jsx", ".mjs", ".cjs"),
        grammar="tree_sitter_javascript",
        query=_JAVASCRIPT_QUERY,
        test_paths=_SCRIPT_TESTS,
    ),
    Language(
        name="go",
        extensions=(".go",),
        grammar="tree_sitter_go",
        query="""
            (comment) @comment
            (function_declaration name: (_) @name body: (_)? @body) @function
            (method_declaration receiver: (_) @owner name: (_) @name body: (_)? @body) @function
            (type_spec name: (_) @name type: [(struct_type) (interface_type)] @body) @class
            (type_declaration (type_spec type: [(struct_type) (interface_type)])) @wrapper
            """,
        doc_comment=r"//(?!go:|nolint|\s*\+build)|/\*",
        test_paths=r"_test\.go$|(^|/)test(data|utils?|helpers?)/",
    ),
    Language(
        name="java",
        extensions=(".java",),
        grammar="tree_sitter_java",
        query="""
            [(line_comment) (block_comment)] @comment
            (method_declaration name: (_) @name body: (_)? @body) @function
            (constructor_declaration name: (_) @name body: (_) @body) @function
            (compact_constructor_declaration name: (_) @name body: (_) @body) @function
            (class_declaration name: (_) @name body: (_) @body) @class
            (interface_declaration name: (_) @name body: (_) @body) @class
            (enum_declaration name: (_) @name body: (_) @body) @class
            (record_declaration name: (_) @name body: (_) @body) @class
            (annotation_type_declaration name: (_) @name body: (_) @body) @class
            (object_creation_expression type: (_) @name (class_body)) @scope
            (enum_constant name: (_) @name body: (_)) @scope
            """,
        test_paths=r"(^|/)(test|tests|androidTest|testFixtures)/|(Test|Tests|TestCase|IT)\.java$",
    ),
    Language(
        name="c",
        extensions=(".c",),
        grammar="tree_sitter_c",
        query=_C_QUERY,
        doc_comment=r"//|/\*",
        test_paths=_C_TESTS,
    ),
    Language(
        name="cpp",
        extensions=(".cpp", ".cc", ".cxx", ".h", ".hpp", ".hh", ".hxx", ".cu", ".cuh", ".ipp"),
        # Headers may be either, and C's are nearly all valid C++; the reverse ruins names and scopes.
        grammar="tree_sitter_cpp",
        query=f"""{_C_QUERY}
            (class_specifier name: (_) @name body: (_) @body) @class
            (namespace_definition name: (_) @name) @namespace
            (template_declaration) @wrapper
            """,
        doc_comment=r"//|/\*",
        test_paths=_C_TESTS,
    ),
    Language(
        name="csharp",
        extensions=(".cs",),
        grammar="tree_sitter_c_sharp",
        query="""
            (comment) @comment
            (method_declaration name: (_) @name body: (_)? @body) @function
            (constructor_declaration name: (_) @name body: (_)? @body) @function
            (local_function_statement name: (_) @name body: (_) @body) @function
            (class_declaration name: (_) @name body: (_)? @body) @class
            (interface_declaration name: (_) @name body: (_)? @body) @class
            (struct_declaration name: (_) @name body: (_)? @body) @class
            (record_declaration name: (_) @name body: (_)? @body) @class
            (enum_declaration name: (_) @name body: (_)? @body) @class
            (namespace_declaration name: (_) @name) @namespace
            """,
        doc_comment=r"///(?!/)|/\*\*(?!/)",
        test_paths=r"(?i)(^|/)[^/]*tests?[^/]*/|tests?\.cs$",
    ),
    Language(
        name="ruby",
        extensions=(".rb", ".rake"),
        grammar="tree_sitter_ruby",
        query="""
            (comment) @comment
            (method name: (_) @name body: (_)? @body) @function
            (singleton_method name: (_) @name body: (_)? @body) @function
            (class name: (_) @name body: (_)? @body) @class
            (module name: (_) @name) @scope
            """,
        doc_comment=r"#(?!!|\s*(rubocop|frozen_string_literal|typed|encoding|:nodoc:))|=begin",
        needs_body=False,
        test_paths=r"(^|/)(test|spec|features)/|_(test|spec)\.rb$",
    ),
    Language(
        name="php",
        extensions=(".php",),
        grammar="tree_sitter_php",
        grammar_function="language_php",
        query="""
            (comment) @comment
            (function_definition name: (_) @name body: (_) @body) @function
            (method_declaration name: (_) @name body: (_)? @body) @function
            (class_declaration name: (_) @name body: (_) @body) @class
            (interface_declaration name: (_) @name body: (_) @body) @class
            (trait_declaration name: (_) @name body: (_) @body) @class
            (enum_declaration name: (_) @name body: (_) @body) @class
            """,
        test_paths=r"(?i)(^|/)tests?/|Test\.php$",
    ),
    Language(
        name="scala",
        extensions=(".scala", ".sc"),
        grammar="tree_sitter_scala",
        query="""
            [(comment) (block_comment)] @comment
            (function_definition name: (_) @name body: (_) @body) @function
            (class_definition name: (_) @name body: (_)? @body) @class
            (object_definition name: (_) @name body: (_)? @body) @class
            (trait_definition name: (_) @name body: (_)? @body) @class
            (enum_definition name: (_) @name body: (_)? @body) @class
            """,
        test_paths=r"(^|/)(test|it)/|(Spec|Test|Suite)\.scala$",
    ),
    Language(
        name="kotlin",
        extensions=(".kt", ".kts"),
        grammar="tree_sitter_kotlin",
        query="""
            [(line_comment) (block_comment)] @comment
            (function_declaration name: (_) @name (function_body) @body) @function
            (class_declaration name: (_) @name (class_body)? @body) @class
            (object_declaration name: (_) @name (class_body)? @body) @class
            (companion_object name: (_) @name) @scope
            """,
        test_paths=r"(^|/)(test|androidTest|commonTest|jvmTest)/|Test\.kts?$",
    ),
    Language(
        name="swift",
        extensions=(".swift",),
        grammar="tree_sitter_swift",
        query="""
            [(comment) (multiline_comment)] @comment
            (function_declaration name: (_) @name body: (_) @body) @function
            (init_declaration name: _ @name body: (_) @body) @function
            (class_declaration name: (_) @name body: (_) @body) @class
            (protocol_declaration name: (_) @name body: (_) @body) @class
            """,
        doc_comment=r"///|/\*\*(?!/)",
        test_paths=r"(^|/)[^/]*Tests?/|Tests?\.swift$",
    ),
)

BY_NAME: Mapping[str, Language] = {language.name: language for language in LANGUAGES}
_TESTS = {
    language.name: (re.compile(language.test_paths), re.compile(language.test_scopes) if language.test_scopes else None)
    for language in LANGUAGES
}
_BY_EXTENSION = {extension: language.name for language in LANGUAGES for extension in language.extensions}


def language_of(path: str) -> str | None:
    """Name of the language of a file, by its extension; None for what is no source code or not in the table."""
    return _BY_EXTENSION.get(PurePosixPath(path).suffix.lower())


def is_test(path: str, language: str, scope: str = "", name: str = "") -> bool:
    """True for a definition that tests others, by the language's conventions for paths and names."""
    paths, scopes = _TESTS[language]
    if paths.search(path):
        return True
    return scopes is not None and scopes.search(f"{scope}.{name}".strip(".")) is not None
