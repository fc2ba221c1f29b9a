"""What the snippets stage takes out of real repositories, how fast, and at what memory.

    python benchmarks/extraction.py [NAME=PATH ...] [--large] [--repeats 3] [--output benchmarks/reports/DATE-extraction.md]

Every night is a process of its own with a fresh data directory: cold, then again with nothing new, then with 30
changed files (a commit on top, made in a bare copy that borrows the objects). `--large` joins the trees of all
repositories, today's and older ones, under one commit on top of the longest history. Without repositories the one
this file lies in is measured. `sampled.py` beside this file prints definitions to read by eye.

Memory is this process's peak plus, for every core, the peak of the largest child: an upper bound.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.settings import RepositorySettings, Settings
from embed_assets.snippets.collect import collect_snippets
from embed_assets.snippets.entries import Entry
from embed_assets.snippets.languages import language_of
from embed_assets.snippets.parse import load_grammars, parse, usable_cores
from embed_assets.snippets.repositories import open_source
from embed_assets.snippets.tree import admitted_entries
from embed_assets.store import Store

CHANGED_FILES = 30
LARGE = {
    "joined, 5 trees each": (0, 300, 900, 1500, 2500),
    "joined, 9 trees each": (0, 150, 300, 600, 900, 1200, 1500, 2000, 2500),
}
"""Name -> first-parent commits before the head of every repository whose trees one large repository holds."""
YARDSTICK: Mapping[str, tuple[int, int]] = {
    "ripgrep": (2978, 984), "ecto": (1541, 391), "explorer": (1281 + 542, 342), "hono": (1478, 135),
    "gin": (1298, 406), "gson": (3419, 614), "flask": (1463, 260), "scrapy": (5927, 781),
}  # fmt: skip
"""Functions, and documented ones, counted independently at recent heads, tests included."""
IDENTITY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Ada"), ("EMAIL", "ada@example.org"), ("DATE", "1760000000 +0000"))
}


@dataclass(frozen=True, kw_only=True)
class Night:
    """One run of the stage, in a process of its own."""

    seconds: float
    cores: float
    """CPU seconds over wall seconds."""
    peak_megabytes: float
    manifest: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One repository."""

    name: str
    cold: Night
    second: Night
    changed: Night
    files_read_per_second: float
    megabytes_per_core_second: float
    functions: int
    documented: int
    rows: int
    """Before duplicates are taken out."""


def git(repository: Path, *command: str, stdin: bytes | None = None) -> str:
    done = subprocess.run(
        ["git", "-C", str(repository), *command],
        input=stdin,
        capture_output=True,
        check=True,
        env=os.environ | IDENTITY,
    )
    return done.stdout.decode().strip()


def run_night(repository: Path, store: Path) -> None:
    """The child: one night, its figures as JSON on standard output."""
    settings = Settings(repositories=(RepositorySettings(source=str(repository), history=False),))
    started, cpu = time.monotonic(), _cpu_seconds()
    manifest = collect_snippets(settings, Store(store))
    seconds = time.monotonic() - started
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    night = Night(
        seconds=seconds,
        cores=(_cpu_seconds() - cpu) / seconds,
        peak_megabytes=peaks[0] + usable_cores() * peaks[1],
        manifest=manifest.to_json(),
    )
    print(json.dumps(night.__dict__))


def night_of(repository: Path, store: Path) -> Night:
    command = [sys.executable, __file__, "--night", str(repository), str(store)]
    return Night(
        **json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    )


def measure(name: str, repository: Path, repeats: int, folder: Path) -> Measured:
    copy = borrowing_copy(repository, folder / f"{name}.git", [repository])
    colds = []
    for number in range(repeats):
        store = folder / f"{name}-{number}"
        colds.append(night_of(copy, store))
    seconds = [night_of(copy, store) for _ in range(repeats)]
    table = rows_of(copy, Store(store))
    functions = table.filter(pl.col("kind").is_in(["function", "method"]))
    read, extracted = throughput(copy, Store(store))
    changes = []
    for _ in range(repeats):
        change_files(copy, CHANGED_FILES)
        changes.append(night_of(copy, store))
    return Measured(
        name=name,
        cold=_median(colds),
        second=_median(seconds),
        changed=_median(changes),
        files_read_per_second=read,
        megabytes_per_core_second=extracted,
        functions=functions.height,
        documented=functions.filter(pl.col("doc") != "").height,
        rows=table.height,
    )


def rows_of(repository: Path, store: Store) -> pl.DataFrame:
    """The table before duplicates are taken out, from the cache."""
    from embed_assets.snippets.tree import snippets_at

    with open_source(RepositorySettings(source=str(repository), history=False), store) as source:
        return snippets_at(source, store)[0]


def throughput(repository: Path, store: Store) -> tuple[float, float]:
    """Files read a second, and megabytes parsed and extracted a second on one core."""
    with open_source(RepositorySettings(source=str(repository), history=False), store) as source:
        entries, _ = admitted_entries(source)
        load_grammars(language_of(entry.path) or "" for entry in entries)
        started = time.monotonic()
        contents = [content for _, content in source.read(entry.blob_id for entry in entries)]
        read = len(contents) / (time.monotonic() - started)
    started, size = time.process_time(), 0
    for entry, content in zip(entries, contents, strict=True):
        parse(content, language_of(entry.path) or "")
        size += len(content)
        if time.process_time() - started > 20:
            break
    return read, size / 1e6 / (time.process_time() - started)


def borrowing_copy(repository: Path, path: Path, lenders: list[Path]) -> Path:
    """A bare repository at the same head that borrows the objects of others."""
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True)
    stores = [git(lender, "rev-parse", "--path-format=absolute", "--git-path", "objects") for lender in lenders]
    (path / "objects" / "info" / "alternates").write_text("".join(f"{store}\n" for store in stores))
    git(path, "update-ref", "refs/heads/main", git(repository, "rev-parse", "HEAD"))
    return path


def change_files(repository: Path, count: int) -> None:
    """A commit on top that appends a line to this many source files."""
    with open_source(RepositorySettings(source=str(repository), history=False), Store(repository)) as source:
        admitted: list[Entry] = admitted_entries(source)[0]
        chosen = admitted[:: max(1, len(admitted) // count)][:count]
        contents = list(source.read(entry.blob_id for entry in chosen))
    stream = [b"commit refs/heads/main\ncommitter Ada <ada@example.org> 1760000001 +0000\ndata 6\nChange\n"]
    stream.append(b"from refs/heads/main^0\n")
    for entry, (_, content) in zip(chosen, contents, strict=True):
        longer = content + b"\n"
        stream.append(
            b"M %o inline %s\ndata %d\n%s\n" % (entry.mode, json.dumps(entry.path).encode(), len(longer), longer)
        )
    git(repository, "fast-import", "--quiet", "--force", stdin=b"".join(stream))


def large_repository(repositories: Mapping[str, Path], older: Sequence[int], path: Path) -> Path:
    """One commit on the longest history whose tree holds everybody's trees, today's and older ones."""
    longest = max(repositories.values(), key=lambda one: int(git(one, "rev-list", "--count", "HEAD")))
    copy = borrowing_copy(longest, path, list(repositories.values()))
    trees = []
    for name, one in repositories.items():
        line = git(one, "rev-list", "--first-parent", "HEAD").splitlines()
        trees += [
            (f"{name}-{back}", git(one, "rev-parse", f"{line[back]}^{{tree}}")) for back in older if back < len(line)
        ]
    listing = "".join(f"040000 tree {tree}\t{folder}\n" for folder, tree in sorted(trees))
    tree = git(copy, "mktree", stdin=listing.encode())
    git(copy, "update-ref", "refs/heads/main", git(copy, "commit-tree", tree, "-p", "HEAD", "-m", "Join"))
    return copy


def report(found: list[Measured], repeats: int) -> str:
    lines = [
        f"# Extraction, {datetime.now(UTC):%Y-%m-%d}", "",
        f"`python benchmarks/extraction.py`: {platform.processor() or platform.machine()}, {usable_cores()} cores; Python "
        f"{platform.python_version()}, tree-sitter {version('tree-sitter')}, polars {pl.__version__}; medians of {repeats}.", "",
        "| repository | files | MB | rows | functions | yardstick | documented | yardstick | cold s | MB/s | cores | "
        "read files/s | MB/s per core | peak MB | second night s | 30 changed s |",
        "|---" * 16 + "|",
        *[_row(one) for one in found], "",
        "| repository | rows by language | left out |", "|---|---|---|",
        *[_detail(one) for one in found],
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(one: Measured) -> str:
    counts = next(iter(one.cold.manifest["repositories"].values()))
    functions, documented = YARDSTICK.get(one.name, (0, 0))
    cells = [
        one.name, f"{counts['files']:,}", f"{counts['bytes'] / 1e6:.1f}", f"{one.rows:,}",
        f"{one.functions:,}", _against(one.functions, functions), f"{one.documented:,}", _against(one.documented, documented),
        f"{one.cold.seconds:.2f}", f"{counts['bytes'] / 1e6 / one.cold.seconds:.2f}", f"{one.cold.cores:.1f}",
        f"{one.files_read_per_second:,.0f}", f"{one.megabytes_per_core_second:.2f}", f"{one.cold.peak_megabytes:,.0f}",
        f"{one.second.seconds:.2f}", f"{one.changed.seconds:.2f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _against(found: int, expected: int) -> str:
    return f"{expected:,} ({found / expected - 1:+.1%})" if expected else ""


def _detail(one: Measured) -> str:
    counts = next(iter(one.cold.manifest["repositories"].values()))
    by_language = ", ".join(f"{language} {count:,}" for language, count in counts["by_language"].items())
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in counts["dropped"].items())
    return f"| {one.name} | {by_language} | {dropped}; duplicates {one.cold.manifest['duplicates']:,} |"


def _median(nights: list[Night]) -> Night:
    middle = sorted(nights, key=lambda night: night.seconds)[len(nights) // 2]
    return Night(**{**middle.__dict__, "seconds": statistics.median(night.seconds for night in nights)})


def _cpu_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def main() -> int:
    if sys.argv[1:2] == ["--night"]:
        run_night(Path(sys.argv[2]), Path(sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", nargs="*", metavar="NAME=PATH", help="default: the repository of this file")
    parser.add_argument("--large", action="store_true", help="also one repository of all their trees")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    given = arguments.repositories or [f"embed_assets={Path(__file__).resolve().parent.parent}"]
    repositories = {name: Path(path).resolve() for name, _, path in (text.partition("=") for text in given)}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in repositories.items():
            found.append(measure(name, path, arguments.repeats, Path(folder)))
            print(_row(found[-1]), flush=True)
        for name, older in LARGE.items() if arguments.large else ():
            joined = large_repository(repositories, older, Path(folder) / f"{name} joined")
            found.append(measure(name, joined, arguments.repeats, Path(folder)))
            print(_row(found[-1]), flush=True)
    text = report(found, arguments.repeats)
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
