"""Prints definitions drawn at random, beside the source they come from, to be read by eye.

    python benchmarks/sampled.py NAME=PATH [--count 50] [--seed 7]

For each: place, kind, qualified name, signature, doc, the first and last lines of the code, and the source lines just
above (`-`) and below (`+`), by which one sees a doc that was missed and a definition that was cut off or merged.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embed_assets.settings import RepositorySettings
from embed_assets.snippets.repositories import open_source
from embed_assets.snippets.tree import snippets_at
from embed_assets.store import Store

WIDTH = 110


def shown(row: Mapping[str, Any], source: list[str]) -> str:
    above = source[max(0, row["start_line"] - 3) : row["start_line"] - 1]
    below = source[row["end_line"] : row["end_line"] + 1]
    code = row["code"].splitlines()
    body = code if len(code) <= 5 else [*code[:3], f"… {len(code) - 4} more …", code[-1]]
    qualified = ".".join(part for part in (row["scope"], row["name"]) if part)
    lines = [
        f"## {row['path']}:{row['start_line']}-{row['end_line']} {row['kind']} {qualified}",
        f"sig {row['signature']}",
        f"doc {' / '.join(row['doc'].splitlines())[:240]}",
        *(f"- {line}" for line in above),
        *(f"| {line}" for line in body),
        *(f"+ {line}" for line in below),
    ]
    return "\n".join(line[:WIDTH] if line[:3] != "doc" else line for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "repository", nargs="?", metavar="NAME=PATH", default=f"={Path(__file__).resolve().parent.parent}"
    )
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    settings = RepositorySettings(source=arguments.repository.partition("=")[2], history=False)
    with tempfile.TemporaryDirectory() as folder, open_source(settings, Store(Path(folder))) as source:
        table, _ = snippets_at(source, Store(Path(folder)))
        chosen = table.sample(min(arguments.count, table.height), seed=arguments.seed, shuffle=True)
        texts = dict(source.read(dict.fromkeys(chosen["blob_id"].to_list())))
        for row in chosen.sort("path", "start_line").iter_rows(named=True):
            print(shown(row, texts[row["blob_id"]].decode("utf-8", "replace").split("\n")))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
