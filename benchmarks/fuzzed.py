"""Real files of every language, damaged at random, through the extractor: no crash, no hang, whole records.

    python benchmarks/fuzzed.py [NAME=PATH ...] [--seconds 60] [--seed 1]

A language is drawn first, then a file, then one to three damages: cut off, cut in the middle, bytes turned, binary or
brackets put in, a piece repeated up to a thousand times, line breaks removed, joined with another file, read as another
language. It is parsed in a child process: one that dies or is silent for `HANG_SECONDS` is counted against the case, and
replaced. Every case can be had again by its number.
"""

import argparse
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from embed_assets.settings import RepositorySettings
from embed_assets.snippets.extract import extract
from embed_assets.snippets.languages import LANGUAGES, language_of
from embed_assets.snippets.parse import parse
from embed_assets.snippets.repositories import open_source
from embed_assets.snippets.syntax import MAX_DEPTH, TooSlowError
from embed_assets.snippets.tree import admitted_entries
from embed_assets.store import Store

HANG_SECONDS = 60.0
MAX_CASE_BYTES = 1_000_000
BRACKETS = (b"(", b"[", b"{", b"<", b"'", b'"', b'"""', b"/*", b"\\", b"#", b"do\n", b"end\n", b"\n", b"\t", b"`", b"@")

Files = Mapping[str, list[bytes]]


def damaged(chance: random.Random, source: bytes, other: bytes) -> bytes:
    if not source:
        return other
    one, two = sorted(chance.randrange(len(source) + 1) for _ in range(2))
    damages: tuple[Callable[[], bytes], ...] = (
        lambda: source[:one],
        lambda: source[:one] + source[two:],
        lambda: source[:one] + chance.randbytes(chance.randrange(1, 200)) + source[one:],
        lambda: source[:one] + chance.choice(BRACKETS) * chance.choice((1, 3, 1_000, 50_000)) + source[one:],
        lambda: source[:two] + source[one : min(two, one + 400)] * chance.choice((2, 30, 1_000)) + source[two:],
        lambda: source.replace(b"\n", b" "),
        lambda: source[:one] + other[two % (len(other) + 1) :],
        lambda: bytes(byte ^ (1 << chance.randrange(8)) if chance.random() < 0.002 else byte for byte in source),
    )
    return chance.choice(damages)()[:MAX_CASE_BYTES]


def case(number: int, files: Files) -> tuple[str, bytes]:
    chance = random.Random(number)
    language = chance.choice(sorted(files))
    source = chance.choice(files[language])
    for _ in range(chance.randrange(1, 4)):
        source = damaged(chance, source, chance.choice(files[chance.choice(sorted(files))]))
    return chance.choice([entry.name for entry in LANGUAGES]) if chance.random() < 0.05 else language, source


def check(language: str, source: bytes) -> str:
    """What came out: `definitions`, `none` or `too_slow`; an assertion fails where a record is not whole."""
    parse(source, language)  # What never enters, secrets and addresses, too.
    try:
        found = extract(source, language)
    except TooSlowError:
        return "too_slow"
    for one in found:
        assert one.name and one.code and 1 <= one.start_line <= one.end_line <= source.count(b"\n") + 1, one
        f"{one.name}{one.scope}{one.code}{one.doc}{one.signature}".encode()
        assert not one.parts or squeezed("".join(one.parts)) == squeezed(one.code), one
    assert sum(len(one.code) for one in found) <= (MAX_DEPTH + 2) * len(source) + 1_000, "more code than there is"
    return "definitions" if found else "none"


def squeezed(code: str) -> str:
    """Without white space, and without the semicolons that may stand behind a doc."""
    return "".join(code.replace(";", " ").split())


def run_cases(start: int, step: int, paths: list[str]) -> None:
    """The child: tells every case's number before it begins, and what it gave."""
    files = files_of(paths)
    for number in range(start, sys.maxsize, step):
        language, source = case(number, files)
        print(f"begin {number} {language}", flush=True)
        started = time.monotonic()
        try:
            outcome = check(language, source)
        except AssertionError as error:
            outcome = f"broken:{str(error)[:80].replace(' ', '_')}"
        print(f"end {outcome} {time.monotonic() - started:.3f} {len(source)}", flush=True)


def files_of(paths: list[str]) -> Files:
    files: dict[str, list[bytes]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            with open_source(RepositorySettings(source=path, history=False), Store(Path(folder))) as source:
                entries = admitted_entries(source)[0]
                for entry, (_, content) in zip(entries, source.read(entry.blob_id for entry in entries), strict=True):
                    files[language_of(entry.path) or ""].append(content)
    return {language: sorted(contents) for language, contents in files.items()}


def outcomes(start: int, step: int, paths: list[str], until: float) -> Iterator[tuple[int, str, str, float, int]]:
    """Number, language, outcome, seconds and bytes of each case; `crashed` and `hung` are outcomes too."""
    number, language = start, ""
    while time.monotonic() < until:
        command = [sys.executable, __file__, "--child", str(number), str(step), *paths]
        # Unbuffered: a line that waits in a buffer is one that `select` does not see.
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as child:
            assert child.stdout is not None
            while time.monotonic() < until:
                silent = not select.select([child.stdout], [], [], HANG_SECONDS)[0]
                words = [] if silent else child.stdout.readline().decode().split(maxsplit=3)
                if not words:
                    child.kill()
                    yield number, language, "hung" if silent else "crashed", HANG_SECONDS if silent else 0.0, 0
                    number += step
                    break
                if words[0] == "begin":
                    number, language = int(words[1]), words[2]
                else:
                    yield number, language, words[1], float(words[2]), int(words[3])
                    number += step
            child.kill()


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        run_cases(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="*", metavar="NAME=PATH", help="default: the repository of this file")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    given = arguments.repositories or [f"={Path(__file__).resolve().parent.parent}"]
    paths = [text.partition("=")[2] for text in given]
    found: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    slowest: list[tuple[float, str, int, int]] = []
    bad = []
    for number, language, outcome, seconds, size in outcomes(
        arguments.seed, 1, paths, time.monotonic() + arguments.seconds
    ):
        found[outcome.partition(":")[0]] += 1
        by_language[language] += 1
        slowest = sorted([*slowest, (seconds, language, number, size)], reverse=True)[:5]
        if outcome.partition(":")[0] in ("crashed", "hung", "broken"):
            bad.append((number, language, outcome))
            print(f"case {number}: {language} {outcome}", flush=True)
    print(f"{sum(found.values()):,} cases in {arguments.seconds:,.0f} s: {dict(found.most_common())}")
    print(f"by language: {dict(by_language.most_common())}")
    print(
        "slowest: "
        + "; ".join(
            f"{seconds:.2f} s ({language}, {size:,} bytes, case {number})"
            for seconds, language, number, size in slowest
        )
    )
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
