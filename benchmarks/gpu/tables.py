"""`python -m benchmarks.gpu.tables RESULTS.jsonl`: the lines of one run as the tables of a report."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]
NAMES = {"qodo": "Qwen2 1.5B", "e5-large": "e5-large", "jina-v3": "jina-v3", "minilm": "MiniLM"}


def main() -> None:
    records = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    ceilings = [record["matmul_tflops"] for record in records if "matmul_tflops" in record]
    print("\n\n".join(tables(records, ceilings[0] if ceilings else None)))


def tables(records: list[Record], ceiling: float | None) -> Iterable[str]:
    yield table(
        "model | batch | negatives | tokens a row | ours | padding-free | | as installed | | TFLOP/s | peak GiB",
        [row for record in _ours(records, "train") if (row := _training(record, records, ceiling))],
    )
    yield table(
        "model | batch | peer with our allocator | samples/s",
        [
            f"{NAMES[record['model']]} | {record['batch']} | {record['attention']} | {record['samples_per_second']:.0f}"
            for record in records
            if record.get("allocator", "default") != "default" and "samples_per_second" in record
        ],
    )
    yield table(
        "a fresh process | steps 7 to 24, samples/s | passes, samples/s | training, s | process, s | peak GiB",
        [
            f"{record['side']}, {record.get('attention') or record['kernels']} | "
            f"{record['window_samples_per_second']:.0f} | {record['pass_samples_per_second']} | "
            f"{record['training_seconds']:.1f} | {record['process_seconds']:.1f} | {record['peak_gib']:.1f}"
            for record in records
            if record.get("what") == "fresh" and "error" not in record
        ],
    )
    yield table("side | batch | texts/s | ours is", _encoding(records))
    yield table(
        "limit, GiB | batch | samples/s | peak GiB | plan",
        [
            f"{record['limit_gib']:g} | {record['batch']} | {record['samples_per_second']:.0f} | {record['peak_gib']:.1f}"
            f" | {record['plan']}"
            for record in _ours(records, "limited")
        ],
    )
    yield table(
        "batch | one GPU, samples/s | two | first pass's mean loss, one | two",
        [
            " | ".join(
                [batch, *(f"{rate:.0f}" for rate in rates), *(f"{loss:.5f}" for loss in record["mean_loss"][batch])]
            )
            for record in _ours(records, "ranks")
            for batch, rates in record["samples_per_second"].items()
        ],
    )
    yield table(
        "model | path | lowest embedding cosine | adapter gradients' cosine",
        [
            f"{NAMES[record['model']]} | {path} | {record[path]['lowest_embedding_cosine']:.5f} | "
            f"{record[path]['gradient_cosine']:.4f}"
            for record in records
            if record.get("what") == "agreement" and "error" not in record
            for path in ("packed", "fused")
        ],
    )


def _training(record: Record, records: list[Record], ceiling: float | None) -> str:
    negatives = record.get("negatives", 0)
    cells = [NAMES[record["model"]], str(record["batch"]), str(negatives), f"{record['tokens_per_row']:.0f}"]
    rate = record["samples_per_second"]
    cells.append(f"{rate:,.0f} samples/s")
    for attention in ("padding-free", "sdpa"):
        peers = [
            peer["samples_per_second"]
            for peer in records
            if peer.get("side") == "sentence-transformers" and "samples_per_second" in peer
            if (peer["model"], peer["batch"], peer["negatives"]) == (record["model"], record["batch"], negatives)
            if (peer["attention"], peer["allocator"]) == (attention, "default")
        ]
        cells += [f"{peers[0]:.0f}", f"{rate / peers[0]:.1f}x"] if peers else ["", ""]
    share = f" ({100 * record['model_tflops'] / ceiling:.0f}%)" if ceiling else ""
    return " | ".join([*cells, f"{record['model_tflops']:.0f}{share}", f"{record['peak_gib']:.1f}"])


def _encoding(records: list[Record]) -> list[str]:
    rows = []
    for record in _ours(records, "encode"):
        rate = record["texts_per_second"]
        rows.append(f"ours | | {rate:,.0f} ({record['model_tflops']:.0f} TFLOP/s) | ")
        rows += [
            f"{peer['attention']}, allocator {peer['allocator']} | {peer['batch']} | {peer['texts_per_second']:.0f} | "
            f"{rate / peer['texts_per_second']:.2f}x"
            for peer in records
            if peer.get("side") == "sentence-transformers" and peer["what"] == "encode" and "error" not in peer
        ]
    return rows


def _ours(records: list[Record], what: str) -> list[Record]:
    return [r for r in records if r.get("side") == "ours" and r["what"] == what and "error" not in r]


def table(head: str, rows: list[str]) -> str:
    return "\n".join([f"| {head} |", "|" + "---|" * (head.count("|") + 1), *(f"| {row} |" for row in rows)])


if __name__ == "__main__":
    main()
