"""Pairs and benchmarks of whole repositories: what is found, what is dropped and why, and what it costs.

    python benchmarks/pairs.py [NAME=PATH ...] [--data FOLDER] [--output benchmarks/reports/DATE-pairs.md]

Each repository is built with default settings in a process of its own: a first night on an empty data directory, then
a second night with nothing new. Memory is the peak of all processes together, sampled. Commits are counted a second
time by the lines that git says differ (`_changed_commits.py`). Without a repository an installed package is built.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks._changed_commits import count_changed_commits  # noqa: E402
from benchmarks._memory import peak_memory  # noqa: E402
from embed_assets.evaluation.benchmark import read_benchmark  # noqa: E402
from embed_assets.files import read_json  # noqa: E402
from embed_assets.pairs.build import build_pairs  # noqa: E402
from embed_assets.pairs.leakage import find_leaks  # noqa: E402
from embed_assets.settings import Settings  # noqa: E402
from embed_assets.store import Store  # noqa: E402

DEFAULT = ("networkx=package:networkx",)
STEPS = ("first", "second", "facts")


def night(name: str, source: str, data: Path) -> dict[str, Any]:
    """One night, in this process."""
    settings = Settings.model_validate({"repositories": [{"source": source, "name": name}]})
    store = Store(data)
    with peak_memory() as peak:
        started = time.monotonic()
        manifest = build_pairs(settings, store)
        seconds = time.monotonic() - started
    return {"seconds": seconds, "megabytes": peak["megabytes"], "manifest": manifest.to_json()}


def facts(name: str, source: str, data: Path) -> dict[str, Any]:
    """What the night left on disk, its proof, and the second count of commits."""
    store = Store(data)
    pairs = pl.read_parquet(store.pairs)
    started = time.monotonic()
    leaks = [
        leak.line
        for link in (store.current_benchmark, store.guard_benchmark)
        for leak in find_leaks(pairs, read_benchmark(link), read_json(store.pairs_copies))
    ]
    seconds = time.monotonic() - started
    by_source = {
        key[0]: dict(zip(rows["split"].to_list(), rows["len"].to_list(), strict=True))
        for key, rows in pairs.group_by("source", "split").len().group_by("source")
    }
    counted = None if source.startswith("package:") else asdict(count_changed_commits(Path(source), data / "counted"))
    return {"by_source": by_source, "leaks": leaks, "proof_seconds": seconds, "commits": counted}


def measure(repositories: Mapping[str, str], data: Path, steps: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Repository -> first night, second night, facts. What `data` holds of an earlier call is not measured again."""
    found: dict[str, dict[str, Any]] = {}
    data.mkdir(parents=True, exist_ok=True)
    for name, source in repositories.items():
        kept = data / f"{name}.json"
        found[name] = json.loads(kept.read_text()) if kept.exists() else {}
        for step in steps:
            if step in found[name]:
                continue
            command = [sys.executable, __file__, f"{name}={source}", "--data", str(data / name), "--step", step]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name][step] = json.loads(output.splitlines()[-1])
            kept.write_text(json.dumps(found[name]))
        if len(found[name]) == len(STEPS):
            print(_line(name, found[name]), flush=True)
    return found


def _line(name: str, one: Mapping[str, Any]) -> str:
    first = one["first"]
    rows = {source: sum(splits.values()) for source, splits in one["facts"]["by_source"].items()}
    return f"{name}: {rows}, first {first['seconds']:.1f} s, second {one['second']['seconds']:.2f} s"


def report(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown tables."""
    packages = ("embed-assets", "polars", "datasketch", "tree-sitter", "GitPython")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}; {versions}. `python benchmarks/pairs.py NAME=PATH ...`, one run.",
        "",
        "## Rows",
        "",
        "| repository | commit rows: train | validation | test | docstring rows: train | validation | test | "
        "test queries: commit | docstring | corpus | copies left out | leaks found |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_rows(name, one) for name, one in found.items()]
    lines += ["", "## Seconds and memory", "", _seconds_head(found), _rule(_seconds_head(found))]
    lines += [_seconds(name, one, found) for name, one in found.items()]
    lines += ["", "## Dropped, by reason", "", _dropped_head(found), _rule(_dropped_head(found))]
    lines += _dropped(found)
    counted = {name: one["facts"]["commits"] for name, one in found.items() if one["facts"]["commits"]}
    if counted:
        lines += ["", "## Commits counted twice", "", _COUNTED, _rule(_COUNTED)]
        lines += [_counted(name, commits) for name, commits in counted.items()]
    return "\n".join(lines) + "\n"


def _rule(head: str) -> str:
    return "|" + "---|" * (head.count("|") - 1)


def _cells(name: str, values: Any) -> str:
    return f"| {name} | " + " | ".join(str(value) for value in values) + " |"


def _rows(name: str, one: Mapping[str, Any]) -> str:
    manifest, by_source = one["first"]["manifest"], one["facts"]["by_source"]
    rows = [
        by_source.get(source, {}).get(split, 0)
        for source in ("commit", "docstring")
        for split in ("train", "validation", "test")
    ]
    asked = [manifest["test_queries"].get(source, 0) for source in ("commit", "docstring")]
    leaks = len(one["facts"]["leaks"])
    return _cells(name, [*rows, *asked, manifest["corpus"], manifest["duplicates"], leaks])


def _steps(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(step for one in found.values() for step in one["first"]["manifest"]["seconds_by_step"]))


def _seconds_head(found: Mapping[str, Mapping[str, Any]]) -> str:
    steps = " | ".join(_steps(found))
    return f"| repository | first night | {steps} | second night | proof of no leak | peak MB, first | second |"


def _seconds(name: str, one: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> str:
    first, second = one["first"], one["second"]
    steps = [f"{first['manifest']['seconds_by_step'].get(step, 0):.1f}" for step in _steps(found)]
    proof = f"{one['facts']['proof_seconds']:.1f}"
    memory = [f"{part['megabytes']:,.0f}" for part in (first, second)]
    return _cells(name, [f"{first['seconds']:.1f}", *steps, f"{second['seconds']:.2f}", proof, *memory])


def _dropped_head(found: Mapping[str, Mapping[str, Any]]) -> str:
    return "| reason | " + " | ".join(found) + " |"


def _dropped(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    dropped = {name: one["first"]["manifest"]["dropped"] for name, one in found.items()}
    reasons = sorted({reason for counts in dropped.values() for reason in counts})
    return [_cells(f"`{reason}`", [counts.get(reason, 0) for counts in dropped.values()]) for reason in reasons]


_COUNTED = (
    "| repository | newest commits that touch source | one to three functions, over five words: by lines | by names | "
    "as an outsider | by content | by content only | by lines only, why | refused by our rules, of those by content |"
)


def _counted(name: str, commits: Mapping[str, Any]) -> str:
    values = (
        commits["commits"],
        commits["by_lines"],
        commits["by_names"],
        commits["by_outsider"],
        commits["by_content"],
        commits["content_only"],
    )
    return _cells(name, [*values, _reasons(commits["lines_only"]), _reasons(commits["refused"])])


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items()) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("repositories", nargs="*", default=DEFAULT, metavar="NAME=PATH")
    parser.add_argument("--data", type=Path, help="Keep the data directories there, one a repository.")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS, help="Measure these, and report later.")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="Where the report goes; printed in any case.")
    arguments = parser.parse_args()
    repositories = dict(text.split("=", 1) for text in arguments.repositories)
    if arguments.step:
        [(name, source)] = repositories.items()
        work = facts if arguments.step == "facts" else night
        print(json.dumps(work(name, source, arguments.data)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(repositories, arguments.data or Path(temporary), arguments.only)
        if any(len(one) < len(STEPS) for one in found.values()):
            return
        text = report(found)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
