"""Was a model trained on what it is asked here? An exact check by digests of queries, over the models' own records.

Near-duplicates are the concern of `pairs.leakage`, before training; this one holds at the door, whoever made the
pairs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embed_assets.files import read_json
from embed_assets.records import Benchmark, query_digest


def find_leaks(benchmark: Benchmark, candidate: Path, live: Path | None) -> tuple[str, ...]:
    """Sentences on every leak; empty when there is none.

    Args:
        candidate: folder with the candidate's training.json.
        live: folder of the live checkpoint; None while the base model is live, which has seen nothing of ours.

    Raises:
        StoreError: a training.json is missing or damaged.
    """
    leaks = list(_leaks_of("the candidate", read_json(candidate / "training.json"), benchmark))
    if live is not None:
        leaks += _leaks_of("the live model", read_json(live / "training.json"), benchmark)
    return tuple(leaks)


def _leaks_of(who: str, training: dict[str, Any], benchmark: Benchmark) -> Iterator[str]:
    learnt = set(training["query_digests"])
    asked = [text for text in benchmark.queries["text"].to_list() if query_digest(text) in learnt]
    if asked:
        yield f"{who} was trained on {len(asked)} of the queries asked here, such as {asked[0][:80]!r}"
    if benchmark.cutoff and int(training["cutoff"]) > benchmark.cutoff:
        yield (
            f"{who} was trained on history up to {training['cutoff']} (seconds since 1970), later than the benchmark's "
            f"cut-off {benchmark.cutoff}"
        )
