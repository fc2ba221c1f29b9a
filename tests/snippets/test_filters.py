"""What never enters, by path and by content."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from embed_assets.snippets.entries import Entry
from embed_assets.snippets.filters import MAX_FILE_BYTES, content_reason, path_filter
from embed_assets.snippets.globs import compile_glob
from tests.snippets.made_repositories import make_repository, run_git


def reason(
    path: str, *, size: int = 10, mode: int = 0o100644, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> str:
    return path_filter(include, exclude).reason(Entry(path=path, blob_id="0" * 40, size=size, mode=mode))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("src/cart.py", ""),
        ("vendor/lib/cart.go", "vendored"),
        ("web/node_modules/x/index.js", "vendored"),
        ("third_party/x.c", "vendored"),
        ("deps/ecto/lib/ecto.ex", "vendored"),
        ("web/jquery-3.1.js", "vendored"),
        ("types/index.d.ts", "vendored"),
        ("api/cart_pb2.py", "generated"),
        ("api/cart.pb.go", "generated"),
        ("dist/app.js", "generated"),
        ("app.min.js", "generated"),
        ("src/vendors.py", ""),
        ("src/generator/cart.py", ""),
        ("src/gen/cart.py", ""),
        ("shop/to_string.go", ""),
        ("README.md", "unknown_language"),
        ("Makefile", "unknown_language"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    assert reason(path) == expected


def test_links_submodules_and_sizes() -> None:
    assert reason("a.py", mode=0o120000) == "symlink"
    assert reason("a.py", mode=0o160000) == "submodule"
    assert reason("a.py", size=MAX_FILE_BYTES) == ""
    assert reason("a.py", size=MAX_FILE_BYTES + 1) == "oversized"
    assert reason("a.py", size=0) == "empty"


def test_globs_of_the_settings() -> None:
    assert reason("src/a.py", include=["src/**"]) == ""
    assert reason("lib/a.py", include=["src/**"]) == "not_included"
    assert reason("src/old/a.py", include=["src"], exclude=["old"]) == "excluded"


def test_git_attributes_overrule_the_conventions_and_the_nearest_wins() -> None:
    chosen = path_filter(
        gitattributes=[
            ("src/.gitattributes", b"parser.py -linguist-generated\n"),
            (
                ".gitattributes",
                b"# note\nparser.py linguist-generated\nvendor/ours/** -linguist-vendored\nlegacy/** linguist-vendored=true\n",
            ),
        ]
    )

    def decided(path: str) -> str:
        return chosen.reason(Entry(path=path, blob_id="", size=1))

    assert decided("parser.py") == "generated"
    assert decided("lib/parser.py") == "generated"
    assert decided("src/parser.py") == ""
    assert decided("vendor/ours/a.py") == ""
    assert decided("vendor/theirs/a.py") == "vendored"
    assert decided("legacy/a.py") == "vendored"


ATTRIBUTES = {
    ".gitattributes": "# note\n*.gen.py linguist-generated\nlegacy/** linguist-vendored=true\n/top.py linguist-generated=false\n"
    'vendor/ours/** -linguist-vendored\nvendor/ours/back/** !linguist-vendored\n"with space/*.py" linguist-generated\n'
    "a/*.py linguist-generated\ndeep linguist-vendored\nguide/** linguist-documentation\n/guide/x.py -linguist-documentation\n",
    "a/.gitattributes": "b.py -linguist-generated\nc/*.py linguist-vendored -linguist-generated\n",
    "a/c/.gitattributes": "d.py !linguist-vendored\n",
}
NAMES = ("vendored", "generated", "documentation")
ATTRIBUTE_PATHS = [
    "x.gen.py", "a/x.gen.py", "legacy/x.py", "legacy/y/z.py", "top.py", "a/top.py", "vendor/ours/x.py", "vendor/ours/y/z.py",
    "vendor/ours/back/x.py", "vendor/theirs/x.py", "with space/x.py", "a/b.py", "a/x.py", "a/c/d.py", "a/c/e.py", "c/e.py",
    "guide/x.py", "guide/y.py",
]  # fmt: skip


def test_git_itself_reads_the_attributes_alike(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "r", {**ATTRIBUTES, **dict.fromkeys(ATTRIBUTE_PATHS, "x = 1\n")})
    chosen = path_filter(gitattributes=[(path, content.encode()) for path, content in ATTRIBUTES.items()])
    said = run_git(repository, "check-attr", "-z", *(f"linguist-{name}" for name in NAMES), "--", *ATTRIBUTE_PATHS)
    fields = said.split("\0")[:-1]
    by_git: dict[str, dict[str, str]] = {}
    for path, attribute, value in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        by_git.setdefault(path, {})[attribute.removeprefix("linguist-")] = value
    meaning = {"set": True, "true": True, "unset": False, "false": False}
    conventions = {path: reason(path) for path in ATTRIBUTE_PATHS}
    for path in ATTRIBUTE_PATHS:
        decided = {name: meaning.get(value, conventions[path] == name) for name, value in by_git[path].items()}
        expected = next((name for name in NAMES if decided[name]), "")
        assert chosen.reason(Entry(path=path, blob_id="", size=1)) == expected, (path, by_git[path])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"def f():\n    return 1\n", ""),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n", "lfs_pointer"),
        (b"\x00\x01binary", "binary"),
        (b"var a=1;" * 1_000, "minified"),
        (b"x = 1\n" * 1_000 + b"y" * 30_000, "minified"),
        (b"// Code generated by protoc-gen-go. DO NOT EDIT.\npackage a\n", "generated"),
        (b"/* @generated */\nfunction f() {}\n", "generated"),
        (b"# This file was automatically generated by SWIG\n", "generated"),
        (b"def f():\n    return 1\n" * 200 + b"# @generated", ""),
        (b"# Generated by Django 5.1 on 2025-01-01\nclass Migration: pass\n", "generated"),
        (b"/* A Bison parser, made by GNU Bison 3.8. */\nint f(void) {}\n", "generated"),
        (b"/* Generated by Cython 3.0 */\nint f(void) {}\n", "generated"),
        (b"# We edit generated files; do not worry\n", ""),
    ],
)
def test_contents(content: bytes, expected: str) -> None:
    assert content_reason(content) == expected


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("*.py", "a/b/c.py", "a/b/c.pyi"),
        ("src/*.py", "src/a.py", "src/b/a.py"),
        ("src/**/*.py", "src/b/c/a.py", "lib/a.py"),
        ("**/gen/**", "a/gen/b.py", "a/general/b.py"),
        ("/a.py", "a.py", "b/a.py"),
        ("docs/", "docs/x/y.py", "doc/x.py"),
        ("a?.py", "ab.py", "abc.py"),
        ("[!a]*.py", "b.py", "a.py"),
        ("x+(1).py", "x+(1).py", "xx1.py"),
    ],
)
def test_globs(glob: str, matching: str, other: str) -> None:
    assert compile_glob(glob).match(matching)
    assert not compile_glob(glob).match(other)
