"""Nothing that can lie in a repository crashes the extractor, keeps it for long, or makes it repeat itself."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzzed import case, check
from embed_assets.snippets.extract import extract, snippet_id_of
from embed_assets.snippets.parse import parse
from embed_assets.snippets.syntax import MAX_DEPTH, MAX_SECONDS
from tests.snippets.test_extract import FIXTURES

LANGUAGE = st.sampled_from(sorted(FIXTURES))
SLOWER_MACHINES = 4
"""Times are of the CPU, so that other processes do not count."""


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(language=LANGUAGE, cut=st.floats(0, 1), garbage=st.binary(max_size=60), at=st.floats(0, 1))
def test_truncated_and_damaged_files_still_give_whole_records(
    language: str, cut: float, garbage: bytes, at: float
) -> None:
    source = FIXTURES[language][0].encode()
    damaged = source[: int(len(source) * cut)]
    place = int(len(damaged) * at)
    damaged = damaged[:place] + garbage + damaged[place:]
    for one in extract(damaged, language):
        assert one.name
        assert one.code
        assert 1 <= one.start_line <= one.end_line <= damaged.count(b"\n") + 1
        one.code.encode("utf-8")  # No lone surrogates: they could not be written to a table.
        one.doc.encode("utf-8")


@settings(max_examples=150)
@given(language=LANGUAGE, blob=st.binary(max_size=2_000))
def test_binary_blobs_do_no_harm(language: str, blob: bytes) -> None:
    assert parse(blob, language) == parse(blob, language)


@settings(max_examples=60)
@given(language=LANGUAGE, tabs=st.booleans(), spaces=st.integers(1, 4))
def test_white_space_does_not_change_what_content_it_is(language: str, tabs: bool, spaces: int) -> None:
    source = FIXTURES[language][0]
    wider = source.replace("  ", "\t" if tabs else "  " * spaces)
    before = [snippet_id_of(language, one.code) for one in extract(source.encode(), language)]
    after = [snippet_id_of(language, one.code) for one in extract(wider.encode(), language)]
    assert before == after


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("python", b"".join(b" " * depth + b"def f():\n" for depth in range(1_000))),
        ("javascript", b"function f(){" * 50_000),
        ("java", b"class A { void f() { " * 30_000),
        ("go", b"(" * 500_000),
        ("python", b"(" * 500_000),
        ("javascript", b"x=[" + b"," * 500_000),
        ("rust", b"#[a]\n" * 100_000 + b"fn f() {}"),
        ("ruby", b"# a\n" * 150_000 + b"def f; end"),
        ("c", b"int f(int a) { return a; }\n" * 20_000),
        ("scala", b"object A { def f = " + b"[" * 62_000),
        ("scala", b"object A { def f = " + b"`" * 50_000),
        ("java", b"/*" + b"\n" * 50_000 + b" */ class A { void f() {} }"),
        ("java", b"/*" + b"*" * 50_000 + b"\nclass A { void f() {} }"),
        ("elixir", b"defmodule A do\n def f(x) do\n" * 10_000),
    ],
)
def test_pathological_files_end_in_bounded_time_and_space(language: str, source: bytes) -> None:
    started = time.process_time()
    parsed = parse(source, language)
    assert time.process_time() - started < MAX_SECONDS * SLOWER_MACHINES
    assert sum(len(one.code) for one in parsed.definitions) <= (MAX_DEPTH + 2) * len(source)


def test_damage_of_every_kind_leaves_whole_records_in_bounded_time() -> None:
    """The beginning of what benchmarks/fuzzed.py does for minutes with real files."""
    files = {language: [source.encode() * 20] for language, (source, _) in FIXTURES.items()}
    for number in range(60):
        language, source = case(number, files)
        started = time.process_time()
        outcome = check(language, source)
        assert time.process_time() - started < MAX_SECONDS * SLOWER_MACHINES, (number, language, len(source))
        assert outcome in ("definitions", "none", "too_slow")


def test_a_file_that_takes_too_long_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embed_assets.snippets.syntax.MAX_SECONDS", -1.0)
    assert parse(b"def f(): pass\n" * 5_000, "python").reason == "too_slow"
    assert parse(b"def f(): pass\n" * 70, "python").reason == "too_slow", "small files are held to it, too"
