"""Do documentation queries find more on large corpora, where there is no history? The product's night on installed packages.

    python benchmarks/documents.py prepare WORK PACKAGE ...
    python benchmarks/documents.py measure WORK PACKAGE ... [--seeds 0 1 2] [--epochs N] [--device auto] [--path auto]
    python benchmarks/documents.py report WORK

Each package is read from where it is installed (`package:NAME`; `a+b` joins two), its docs are held out by file, and the
night that learns the others is judged on them: the gate's own queries, which no recipe was chosen on but for
networkx+polars. Steps may run on different machines, as in `recall.py`; `measure` needs no package.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from embed_assets.evaluation.evaluate import evaluate_candidate  # noqa: E402
from embed_assets.evaluation.gate import decide  # noqa: E402
from embed_assets.evaluation.job import plan_evaluation  # noqa: E402
from embed_assets.evaluation.metrics import recall_at, reciprocal_rank  # noqa: E402
from embed_assets.evaluation.significance import bootstrap_interval  # noqa: E402
from embed_assets.files import read_json, write_json  # noqa: E402
from embed_assets.pairs.build import build_pairs  # noqa: E402
from embed_assets.records import SliceReport  # noqa: E402
from embed_assets.settings import Settings  # noqa: E402
from embed_assets.store import Store  # noqa: E402
from embed_assets.training.candidate import run_job  # noqa: E402
from embed_assets.training.job import TrainingJob  # noqa: E402
from embed_assets.training.plan import plan_training  # noqa: E402

SYSTEMS = ("base", "bm25", "hybrid_base", "candidate", "hybrid_candidate")


def settings_for(name: str, **training: Any) -> Settings:
    repositories = [{"source": f"package:{package}", "name": package} for package in name.split("+")]
    return Settings.model_validate({"repositories": repositories, "training": training})


def prepare(work: Path, name: str) -> dict[str, Any]:
    """Pairs and benchmark of one package, as a night builds them."""
    store = Store(work / name)
    night = build_pairs(settings_for(name), store)
    facts = {
        "name": name, "corpus": night.corpus, "rows": night.by_split.get("train", 0), "held_out": night.test_queries,
        "seconds": night.seconds,
    }  # fmt: skip
    write_json(work / name / "facts.json", facts)
    return facts


def measure(work: Path, name: str, seed: int, **training: Any) -> dict[str, Any]:
    """One night: trained, evaluated, judged."""
    store, settings = Store(work / name), settings_for(name, seed=seed, **training)
    job = plan_training(settings, store, force=True)
    assert isinstance(job, TrainingJob)
    label = f"seed-{seed}" + (f"-epochs-{training['epochs']}" if training.get("epochs") else "")
    job = replace(job, latest_link="", candidate_id=label, output=str(store.candidate(label)))
    started = time.monotonic()
    trained = run_job(job)
    report = evaluate_candidate(plan_evaluation(settings, store, label))
    docs = report.slice("docstring")
    assert docs is not None
    result = {
        "name": name, "seed": seed, "epochs": trained["recipe"]["epochs"], "rows": trained["rows"],
        "promoted": decide(report, settings.gate).promote, "training_seconds": trained["seconds"],
        "seconds": round(time.monotonic() - started, 1), "queries": len(docs.query_ids), "groups": docs.group_ids,
        "figures": {part.name: _means(part) for part in report.slices},
        "mrr": {name: reciprocal_rank(docs.ranks[name]).round(4).tolist() for name in ("base", "candidate")},
    }  # fmt: skip
    write_json(work / name / f"{label}.json", result)
    return {key: result[key] for key in ("name", "seed", "epochs", "promoted", "seconds", "figures")}


def _means(part: SliceReport) -> dict[str, tuple[float, float]]:
    """System -> MRR@10 and recall@10, in points."""
    return {
        system: (
            round(100 * float(reciprocal_rank(part.ranks[system]).mean()), 2),
            round(100 * float(recall_at(part.ranks[system]).mean()), 2),
        )
        for system in SYSTEMS
    }


def report_of(work: Path) -> str:
    """A line for each package and number of passes; means over seeds, intervals over files."""
    lines = [
        "| package | functions | rows | passes | queries | base MRR@10, R@10 | BM25 | candidate | gain in MRR@10 | hybrid, base and candidate | guard R@10 | promoted |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for facts in sorted(work.glob("*/facts.json")):
        found = [read_json(path) for path in sorted(facts.parent.glob("seed-*.json"))]
        for passes in sorted({each["epochs"] for each in found}):
            lines.append(_line(read_json(facts), [each for each in found if each["epochs"] == passes]))
    return "\n".join(lines)


def _line(facts: dict[str, Any], seeds: Sequence[dict[str, Any]]) -> str:
    def figures(system: str, part: str = "docstring") -> str:
        mrr, recall = np.mean([seed["figures"][part][system] for seed in seeds], axis=0)
        return f"{mrr:.1f}, {recall:.1f}"

    gains = 100 * np.mean([np.subtract(seed["mrr"]["candidate"], seed["mrr"]["base"]) for seed in seeds], axis=0)
    low, high = bootstrap_interval(gains, seeds[0]["groups"])
    guard = np.mean([np.subtract(*(seed["figures"]["guard"][s][1] for s in ("candidate", "base"))) for seed in seeds])
    return (
        f"| {facts['name']} | {facts['corpus']:,} | {seeds[0]['rows']:,} | {seeds[0]['epochs']} | {seeds[0]['queries']:,} "
        f"| {figures('base')} | {figures('bm25')} | {figures('candidate')} | {gains.mean():+.1f} [{low:.1f}, {high:.1f}] "
        f"| {figures('hybrid_base')} / {figures('hybrid_candidate')} | {guard:+.1f} "
        f"| {sum(seed['promoted'] for seed in seeds)} of {len(seeds)} |"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "measure", "report"), nargs="?")
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--path", default="auto")
    chosen = parser.parse_args(arguments)
    if chosen.step is None or chosen.work is None:
        print("documents.py needs a folder to work in and names of packages: see its first lines; nothing was measured")
    elif chosen.step == "report":
        print(report_of(chosen.work))
    elif chosen.step == "prepare":
        for name in chosen.names:
            print(json.dumps(prepare(chosen.work, name)), flush=True)
    else:
        dials = {"device": chosen.device, "path": chosen.path, "epochs": chosen.epochs}
        for name in chosen.names:
            for seed in chosen.seeds:
                print(json.dumps(measure(chosen.work, name, seed, **dials)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
