"""Exact top-k and mined negatives of many vectors: seconds, and whether memory stays where it should.

    python benchmarks/retrieval.py [--rows 100000] [--dim 384] [--output FILE]

Every row is searched among all rows, `--rows` squared scores. The peer is sentence-transformers' `semantic_search` with
its defaults, on the first tenth of the queries. Each side in a process of its own, whose peak memory is sampled.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks._memory import peak_memory  # noqa: E402
from embed_assets.retrieval.exact import Floats, Indices, top_k  # noqa: E402
from embed_assets.retrieval.negatives import mine_hard_negatives  # noqa: E402

K = 10
LIMIT_MEGABYTES = 4_096
SEED = 5
SIDES = {
    "top_k": "exact top 10 of all rows",
    "negatives": "7 hard negatives of all rows, cap 0.95",
    "top_k_tenth": "exact top 10 of a tenth of the rows",
    "peer": "`semantic_search`, top 10 of a tenth of the rows",
}


def vectors(rows: int, dim: int) -> Floats:
    """Unit rows in a few thousand clusters, as embeddings of code are."""
    chance = np.random.default_rng(SEED)
    centres = chance.standard_normal((max(1, rows // 20), dim), dtype=np.float32)
    found = centres[chance.integers(0, len(centres), rows)]
    found += 0.7 * chance.standard_normal((rows, dim), dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def search(side: str, corpus: Floats) -> Indices:
    """(queries, K) rows of the corpus."""
    tenth = corpus[: len(corpus) // 10]
    if side == "top_k":
        return top_k(corpus, corpus, K)[0]
    if side == "top_k_tenth":
        return top_k(tenth, corpus, K)[0]
    if side == "negatives":
        own = np.arange(len(corpus))
        return mine_hard_negatives(corpus, corpus, own, [()] * len(corpus), count=7)
    import torch
    from sentence_transformers.util import semantic_search

    hits = semantic_search(torch.from_numpy(tenth), torch.from_numpy(corpus), top_k=K)
    return np.asarray([[hit["corpus_id"] for hit in row] for row in hits])


def run(side: str, rows: int, dim: int) -> dict[str, float]:
    corpus = vectors(rows, dim)
    search(side, corpus[:100])  # Imports are no part of a search.
    with peak_memory() as peak:
        started = time.monotonic()
        found = search(side, corpus)
        seconds = time.monotonic() - started
    checksum = int(found[: rows // 10].astype(np.int64).sum())
    return {"seconds": seconds, "megabytes": peak["megabytes"], "checksum": checksum}


def measure(rows: int, dim: int) -> dict[str, dict[str, float]]:
    found = {}
    for side in SIDES:
        command = [sys.executable, __file__, "--rows", str(rows), "--dim", str(dim), "--side", side]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[side] = json.loads(output.splitlines()[-1])
        print(side, found[side], flush=True)
    return found


def report(found: dict[str, dict[str, float]], rows: int, dim: int) -> str:
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, numpy {version('numpy')}, torch {version('torch')}, "
        f"sentence-transformers {version('sentence-transformers')}; {rows:,} x {rows:,} vectors of {dim}, one run.",
        "",
        "| what | seconds | peak MB |",
        "|---|---|---|",
    ]
    lines += [f"| {SIDES[side]} | {one['seconds']:.1f} | {one['megabytes']:,.0f} |" for side, one in found.items()]
    same = found["top_k_tenth"]["checksum"] == found["peer"]["checksum"]
    lines += ["", f"The peer finds {'the same rows' if same else 'other rows'}."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="Where the report goes; printed in any case.")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(run(arguments.side, arguments.rows, arguments.dim)))
        return 0
    found = measure(arguments.rows, arguments.dim)
    text = report(found, arguments.rows, arguments.dim)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
    return 0 if found["top_k"]["megabytes"] < LIMIT_MEGABYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
