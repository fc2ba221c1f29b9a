"""Does the default recipe find more, on repositories nobody tuned on? The product's own nights, from git to verdict.

    python benchmarks/recall.py prepare WORK --repositories FOLDER [--set final|seen-once|development|NAME ...] [--external FOLDER ...]
    python benchmarks/recall.py team WORK NAME ... [--seeds 0] [--device auto] [--path auto]
    python benchmarks/recall.py measure WORK NAME ... [--seeds 0 1 2] [--device auto] [--path auto] [--start-from CANDIDATE] [--kinds night open]
    python benchmarks/recall.py report WORK [--runs seed|warm] [--output benchmarks/reports/DATE-recall.md]

Each repository is a bare clone `FOLDER/OWNER+NAME/repo`, whole history. Time is cut once, at N: after it lies the
future, the newest fifth of the commit queries (300 at most), exactly as the product cuts.

- **night**: the product's night at N with default settings, which sees nothing later: pairs, training, evaluation, gate.
  Its held-out queries, on which the gate decides, lie before N and are never reported. The gated result is the candidate's
  where the gate promotes, the base's where it refuses; the ungated one is the candidate's always.
- **open**: the same with `pairs.test_queries = 20`, so that nearly everything before N is learnt from: what the recipe
  makes of a history when no judge takes a share of it.
- **future**: commit subjects after N -> the functions they changed, in the tree at N. Judged by it: base, candidate, BM25 and the
  hybrids of both kinds of night. Queries that were learnt are dropped; functions may recur, as they do in use.

`--external` adds sets in BEIR's format (benchmarks/cosqa.py writes one): what the nights do to them is reported.

`team` trains one adapter on the `open` rows of several repositories and prints its folder; `measure --start-from FOLDER` has
both kinds of night begin with it. Such runs lie beside the others, as `warm-SEED` instead of `seed-SEED`.

The steps may run on different machines; only `prepare` needs git. Which repositories were looked at while recipes
were chosen, and which were not, is written down here.
"""

import argparse
import json
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from embed_assets.evaluation.benchmark import read_benchmark  # noqa: E402
from embed_assets.evaluation.evaluate import evaluate_candidate  # noqa: E402
from embed_assets.evaluation.gate import decide  # noqa: E402
from embed_assets.evaluation.job import plan_evaluation  # noqa: E402
from embed_assets.evaluation.judged import judged_queries, pooled  # noqa: E402
from embed_assets.evaluation.metrics import recall_at, reciprocal_rank  # noqa: E402
from embed_assets.files import write_json  # noqa: E402
from embed_assets.pairs.build import build_pairs  # noqa: E402
from embed_assets.pairs.manifest import digest_of_pairs, read_manifest  # noqa: E402
from embed_assets.records import SliceReport, query_digest  # noqa: E402
from embed_assets.settings import Settings  # noqa: E402
from embed_assets.store import Store  # noqa: E402
from embed_assets.training.candidate import run_job  # noqa: E402
from embed_assets.training.job import TrainingJob  # noqa: E402
from embed_assets.training.plan import plan_training  # noqa: E402

DEVELOPMENT = (
    "pallets+flask", "scrapy+scrapy", "BurntSushi+ripgrep", "elixir-ecto+ecto", "elixir-explorer+explorer",
    "honojs+hono", "gin-gonic+gin", "google+gson",
)  # fmt: skip
"""Recipes were chosen on these, on queries before N only."""
SEEN_ONCE = (
    "pallets+click", "tokio-rs+axum", "phoenixframework+phoenix", "vuejs+core", "spf13+cobra", "jekyll+jekyll",
    "fmtlib+fmt", "pytest-dev+pytest", "clap-rs+clap", "elixir-plug+plug", "labstack+echo", "rack+rack",
    "square+retrofit", "encode+httpx", "fastify+fastify", "sinatra+sinatra", "urfave+cli", "tokio-rs+tracing",
    "mockito+mockito", "guzzle+guzzle", "elixir-tesla+tesla",
)  # fmt: skip
"""Reported once, before the recipe was changed; afterwards recipes were compared on them, on queries before N only."""
FINAL = (
    "aio-libs+aiohttp", "pallets+werkzeug", "hyperium+hyper", "caddyserver+caddy", "puma+puma", "composer+composer",
    "absinthe-graphql+absinthe", "apache+commons-lang", "vitejs+vite", "JamesNK+Newtonsoft.Json",
)  # fmt: skip
"""Never looked at before the reported run: Python, Rust, Go, Ruby, PHP, Elixir, Java, TypeScript, C#."""
SETS = {"final": FINAL, "seen-once": SEEN_ONCE, "development": DEVELOPMENT}
KINDS = {"night": {}, "open": {"test_queries": 20}}
"""Kind of night -> what differs from the default `pairs` settings."""


def settings_for(
    name: str,
    kind: str,
    *,
    folder: Path | None = None,
    branch: str = "",
    external: Sequence[Path] = (),
    **training: Any,
) -> Settings:
    source = str(folder / name / "repo") if folder else f"./{name}"
    repository = {"source": source, "name": name.split("+")[1], "branch": branch}
    pairs = {**KINDS.get(kind, {}), "external_sets": [str(each) for each in external]}
    return Settings.model_validate({"repositories": [repository], "pairs": pairs, "training": training})


def prepare(work: Path, folder: Path, name: str, external: Sequence[Path] = ()) -> dict[str, Any]:
    """Cuts time, and builds the future's benchmark and both nights' pairs with the product."""
    from embed_assets.snippets.repositories import open_source

    started = time.monotonic()
    store = Store(work / name / "future")
    settings = settings_for(name, "future", folder=folder)
    future = build_pairs(settings, store)
    with open_source(settings.repositories[0], store) as source:
        head = source.commit_at(future.cutoff)  # type: ignore[union-attr]
    facts: dict[str, Any] = {"name": name, "N": future.cutoff, "head": head, "future": dict(future.test_queries)}
    for kind in KINDS:
        _share_caches(store, Store(work / name / kind))
        night = build_pairs(
            settings_for(name, kind, folder=folder, branch=head, external=external), Store(work / name / kind)
        )
        facts[kind] = {
            "train": night.by_split.get("train", 0), "by_source": night.by_source, "held_out": night.test_queries,
            "corpus": night.corpus, "seconds": night.seconds,
        }  # fmt: skip
    facts["corpus"] = future.corpus
    facts["seconds"] = round(time.monotonic() - started, 1)
    write_json(work / name / "facts.json", facts)
    return facts


def _share_caches(source: Store, target: Store) -> None:
    """What is parsed once for each blob and commit; nothing of it depends on the cut."""
    folders = (source.pairs_dir / name for name in ("changes", "guard", "rehearsal"))
    for place in (source.snippet_cache, *folders):
        copy = target.root / place.relative_to(source.root)
        if place.is_dir() and not copy.exists():
            shutil.copytree(place, copy)


def train_team(work: Path, names: Sequence[str], seed: int, **training: Any) -> Path:
    """One adapter on the `open` rows of all of them, as a night on a settings file that names them all; its folder."""
    nights, store = [Store(work / name / "open") for name in names], Store(work / "team")
    pairs = pl.concat([pl.read_parquet(night.pairs) for night in nights])
    store.pairs_dir.mkdir(parents=True, exist_ok=True)
    pairs.write_parquet(store.pairs)
    pl.concat([pl.read_parquet(night.pairs_negatives) for night in nights]).write_parquet(store.pairs_negatives)
    _rehearsed_by_all(nights).write_parquet(store.pairs_rehearsal)
    manifests = [read_manifest(night) for night in nights]
    cutoff = max(manifest.cutoff for manifest in manifests)
    joined = replace(manifests[0], pairs_digest=digest_of_pairs(pairs), cutoff=cutoff)
    write_json(store.pairs_manifest, joined.to_json())
    job = plan_training(Settings.model_validate({"training": {"seed": seed, **training}}), store, force=True)
    assert isinstance(job, TrainingJob)
    run_job(job)
    return Path(job.output)


def _rehearsed_by_all(nights: Sequence[Store]) -> pl.DataFrame:
    """What resembles nothing of any of them."""
    rows = pl.concat([pl.read_parquet(night.pairs_rehearsal) for night in nights])
    found = rows.group_by(rows.columns, maintain_order=True).len()
    return found.filter(pl.col("len") == len(nights)).select(rows.columns)


def measure(work: Path, name: str, seed: int, *, kinds: Sequence[str] = tuple(KINDS), **training: Any) -> Path:
    """Nights of the given kinds with one seed: trained, judged by their gate, then by the future.

    Kinds that were measured before, and are not now, stay as they are.
    """
    label = f"{'warm' if training.get('start_from') else 'seed'}-{seed}"
    path = work / name / f"{label}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    result: dict[str, Any] = {**before, "name": name, "seed": seed, "machine": _machine()}
    for kind in kinds:
        store = Store(work / name / kind)
        settings = settings_for(name, kind, seed=seed, **training)
        job = plan_training(settings, store, force=True)
        assert isinstance(job, TrainingJob)
        job = replace(job, latest_link="", candidate_id=label, output=str(store.candidate(label)))
        started = time.monotonic()
        trained = run_job(job)
        plan = plan_evaluation(settings, store, job.candidate_id)
        report = evaluate_candidate(plan)
        verdict, judged = decide(report, settings.gate), judged_queries(report, settings.gate)
        seconds = time.monotonic() - started
        future = Store(work / name / "future").current_benchmark.resolve()
        later = evaluate_candidate(replace(plan, benchmark=str(future), guard="", external=[]))
        learnt = set(trained["query_digests"])
        result[kind] = {
            "promoted": verdict.promote, "reasons": verdict.reasons, "rows": trained["rows"], "rehearsed": trained["rehearsed"], "recipe": trained["recipe"],
            "started_from": trained["started_from"], "best_epoch": trained["best_epoch"], "training_seconds": trained["seconds"], "night_seconds": round(seconds, 1),
            "guard": _measures(report.slice("guard")), "held_out": _measures(pooled(judged) if judged else None),
            "external": {
                part.name: _measures(part)
                for part in report.slices
                if part.name.startswith("external_") and not part.name.endswith("_masked")
            },
            "deciding": verdict.deciding_slice, "touched": _touched(store, future),
            **{part.name: _measures(_unlearnt(part, future, learnt)) for part in later.slices},
        }  # fmt: skip
    write_json(path, result)
    return path


def _unlearnt(part: SliceReport, future: Path, learnt: set[str]) -> SliceReport:
    """Without queries whose words the model was trained on."""
    queries = read_benchmark(future).queries
    words = dict(zip(queries["query_id"].to_list(), queries["text"].to_list(), strict=True))
    keep = [place for place, query in enumerate(part.query_ids) if query_digest(words[query]) not in learnt]

    def kept(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[place] for place in keep)

    return replace(
        part,
        query_ids=kept(part.query_ids),
        group_ids=kept(part.group_ids),
        repositories=kept(part.repositories),
        languages=kept(part.languages),
        ranks={system: kept(rows) for system, rows in part.ranks.items()},
    )


def _measures(part: SliceReport | None) -> dict[str, Any]:
    """Per query and system the two measures, and what the queries are clustered by."""
    if part is None:
        return {}
    systems = [system for system in part.ranks if "live" not in system]
    return {
        "query_ids": part.query_ids,
        "groups": part.group_ids,
        "r10": {system: recall_at(part.ranks[system]).round(4).tolist() for system in systems},
        "mrr": {system: reciprocal_rank(part.ranks[system]).round(4).tolist() for system in systems},
    }


def _touched(store: Store, future: Path) -> list[str]:
    """Future queries one of whose functions a training row taught."""
    learnt = set(pl.read_parquet(store.pairs).filter(pl.col("split") == "train")["definition_id"].to_list())
    queries = read_benchmark(future).queries.select("query_id", "relevant")
    return [query for query, relevant in queries.iter_rows() if learnt & set(relevant)]


def _machine() -> Mapping[str, Any]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step")
    preparing = steps.add_parser("prepare")
    preparing.add_argument("work", type=Path)
    preparing.add_argument("--repositories", type=Path, required=True)
    preparing.add_argument("--set", nargs="+", default=["final"], help="final, seen-once, development, or names")
    preparing.add_argument("--external", type=Path, nargs="*", default=[])
    measuring = steps.add_parser("measure")
    joining = steps.add_parser("team")
    for training in (measuring, joining):
        training.add_argument("work", type=Path)
        training.add_argument("names", nargs="+")
        training.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2] if training is measuring else [0])
        training.add_argument("--device", default="auto")
        training.add_argument("--path", default="auto")
    measuring.add_argument("--start-from", type=Path)
    measuring.add_argument("--kinds", nargs="+", default=[*KINDS], choices=[*KINDS])
    reporting = steps.add_parser("report")
    reporting.add_argument("work", type=Path)
    reporting.add_argument("--runs", default="seed", choices=("seed", "warm"))
    reporting.add_argument("--output", type=Path)
    chosen = parser.parse_args(arguments)
    if chosen.step is None:
        print("recall.py needs clones of repositories with their history: see its first lines; nothing was measured")
        return 0
    if chosen.step == "report":
        from benchmarks._recall_report import write_report

        print(write_report(chosen.work, chosen.output, runs=chosen.runs))
    elif chosen.step == "prepare":
        for name in [name for each in chosen.set for name in SETS.get(each, (each,))]:
            print(json.dumps(prepare(chosen.work, chosen.repositories, name, chosen.external)), flush=True)
    elif chosen.step == "team":
        for seed in chosen.seeds:
            print(train_team(chosen.work, chosen.names, seed, device=chosen.device, path=chosen.path), flush=True)
    else:
        dials: dict[str, Any] = {"device": chosen.device, "path": chosen.path, "kinds": chosen.kinds}
        if chosen.start_from:
            dials["start_from"] = chosen.start_from.resolve()
        for name in chosen.names:
            for seed in chosen.seeds:
                print(measure(chosen.work, name, seed, **dials), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
