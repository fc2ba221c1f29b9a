"""Texts to vectors, ours against `SentenceTransformer.encode` with its defaults: same model, texts, cores, one run.

    python -m benchmarks.encoding [--device cpu] [--texts 1024] [--repeats 5] [--threads N] [--output REPORT.md]

Each side is a process of its own and the sides take turns, so that a busy minute hits both. Timed is text in, vectors
out, tokenisation included; loading and a first warm-up call are not. The vectors of both sides are compared.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workload import MODEL, OURS, PEER, SIDES, functions, run_side, surroundings, write_report

PACKAGES = ("networkx", "polars")
WARM_UP = 64


def encode(side: str, texts: list[str], device: str, threads: int, vectors: Path) -> dict[str, Any]:
    """One side, in this process: seconds of one call, and its vectors into a file."""
    import torch

    from embed_assets.encoder.load import load_encoder
    from embed_assets.encoder.resolve import resolve

    torch.set_num_threads(threads)
    path = resolve(MODEL).path
    if side == OURS:
        encoder = load_encoder(path, device=device)
        call, tokens = encoder.encode, sum(map(len, encoder.tokenise(texts)))
    else:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(path), device=device)
        call, tokens = model.encode, 0
    call(texts[:WARM_UP])
    started, worked = time.perf_counter(), time.process_time()
    found = call(texts)
    seconds = time.perf_counter() - started
    np.save(vectors, found)
    return {"seconds": seconds, "cpu_seconds": time.process_time() - worked, "tokens": tokens}


def measure(device: str, texts: int, repeats: int, threads: int) -> dict[str, Any]:
    """Every run of both sides, and how far their vectors agree."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "texts.json")
        file.write_text(json.dumps(functions(PACKAGES, texts)), encoding="utf-8")
        for turn in range(repeats):
            for side in SIDES:
                arguments = ["--side", side, "--work", folder, "--device", device, "--threads", str(threads)]
                runs[side].append(run_side("benchmarks.encoding", arguments, threads=threads))
                print(f"{turn + 1}/{repeats} {side:22} {texts / runs[side][-1]['seconds']:.1f} texts/s", flush=True)
        ours, theirs = (np.load(Path(folder, f"{side}.npy")) for side in SIDES)
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    return {"runs": runs, "lowest_cosine": float(cosines.min()), "overlap": top_10_overlap(ours, theirs)}


def top_10_overlap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean share of the ten nearest texts that both sides agree on, each text asked once."""
    nearest = []
    for vectors in (ours, theirs):
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -np.inf)
        nearest.append(np.argpartition(-scores, 10, axis=1)[:, :10])
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*map(np.ndarray.tolist, nearest), strict=True)]))


def report(found: dict[str, Any], device: str, texts: int, repeats: int, threads: int) -> str:
    """Markdown: medians over the repeats."""
    runs = found["runs"]
    tokens = runs[OURS][0]["tokens"]
    lines = [
        "# Encoding: embed_assets against sentence-transformers",
        "",
        surroundings(device, threads),
        f"Medians of {repeats} runs of each side, taking turns: {texts} functions of {' and '.join(PACKAGES)}, {tokens / texts:.0f} "
        f"real tokens on average, {MODEL}, float32 in and out. `python -m benchmarks.encoding`.",
        "",
        "| side | texts/s | real tokens/s | CPU seconds | slowest and fastest run, texts/s |",
        "|---|---|---|---|---|",
    ]
    for side in SIDES:
        rates = sorted(texts / run["seconds"] for run in runs[side])
        cpu = statistics.median(run["cpu_seconds"] for run in runs[side])
        rate = statistics.median(rates)
        lines.append(
            f"| {side} | {rate:.1f} | {rate * tokens / texts:,.0f} | {cpu:.1f} | {rates[0]:.1f}, {rates[-1]:.1f} |"
        )
    faster = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(runs[OURS], runs[PEER], strict=True))
    lines += [
        "",
        f"{faster:.2f} times the texts per second. Lowest cosine between the sides' vectors {found['lowest_cosine']:.6f}, "
        f"top-10 overlap {found['overlap']:.4f}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, help="Where the report goes; printed in any case.")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        texts = json.loads(Path(given.work, "texts.json").read_text(encoding="utf-8"))
        print(json.dumps(encode(given.side, texts, given.device, given.threads, given.work / f"{given.side}.npy")))
        return
    found = measure(given.device, given.texts, given.repeats, given.threads)
    write_report(report(found, given.device, given.texts, given.repeats, given.threads), given.output)


if __name__ == "__main__":
    main()
