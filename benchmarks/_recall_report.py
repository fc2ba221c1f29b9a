"""The report of `recall.py`: goals, gains with intervals, each repository, forgetting, cost, and the plot.

The macro average weighs repositories equally. Its interval redraws the commits of every repository (queries of one commit
together; a query's gain is its mean over seeds), so that it speaks of these repositories, not of others.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.recall import KINDS, SETS
from embed_assets.evaluation.significance import cluster_sums

Doubles = npt.NDArray[np.float64]
RESAMPLES = 4_000
LARGE_CORPUS = 2_000
DIALS = ("learning_rate", "batch_size", "temperature", "lora_rank", "rehearsal", "lexical_share", "delta_scale")
"""Of the recipe, named in the report; None where the runs are older than the dial."""
TICKS = (250, 500, 1_000, 2_000, 4_000)
"""Of the plot, in rows and functions."""
GOALS = (
    ("dense R@10", "commit", "r10", "candidate", "base", 8.5),
    ("fused R@10, over the weighted base", "commit", "r10", "fused_candidate", "hybrid_base", 6.0),
    ("fused R@10, over the fused base", "commit", "r10", "fused_candidate", "fused_base", 6.0),
    ("dense MRR@10", "commit", "mrr", "candidate", "base", 10.0),
)
MORE = (
    ("fused MRR@10, over the weighted base", "commit", "mrr", "fused_candidate", "hybrid_base"),
    ("fused MRR@10, over the fused base", "commit", "mrr", "fused_candidate", "fused_base"),
    ("base: fused over weighted R@10", "commit", "r10", "fused_base", "hybrid_base"),
    ("base: fused over weighted MRR@10", "commit", "mrr", "fused_base", "hybrid_base"),
    ("candidate: fused over weighted R@10", "commit", "r10", "fused_candidate", "hybrid_candidate"),
    ("candidate: fused over weighted MRR@10", "commit", "mrr", "fused_candidate", "hybrid_candidate"),
    ("docs: fused R@10, over the weighted base", "docstring", "r10", "fused_candidate", "hybrid_base"),
    ("docs: fused MRR@10, over the weighted base", "docstring", "mrr", "fused_candidate", "hybrid_base"),
    ("weighted hybrid R@10", "commit", "r10", "hybrid_candidate", "hybrid_base"),
    ("weighted hybrid MRR@10", "commit", "mrr", "hybrid_candidate", "hybrid_base"),
    ("reciprocal rank fusion R@10", "commit", "r10", "rrf_candidate", "rrf_base"),
)


@dataclass(frozen=True)
class Measured:
    """One repository: what it is, and each seed's result."""

    name: str
    facts: dict[str, Any]
    seeds: tuple[dict[str, Any], ...]

    @property
    def short(self) -> str:
        return self.name.split("+")[1]


@dataclass(frozen=True)
class Gains:
    """Per query, in points: mean over seeds."""

    values: Doubles
    groups: tuple[str, ...]


def read(work: Path, runs: str) -> list[Measured]:
    """Every repository with at least one finished seed; `runs` says how the files of the runs begin."""
    found = []
    for facts in sorted(work.glob("*/facts.json")):
        seeds = tuple(json.loads(path.read_text()) for path in sorted(facts.parent.glob(f"{runs}-*.json")))
        if seeds:
            found.append(Measured(facts.parent.name, json.loads(facts.read_text()), seeds))
    return found


def kinds_of(measured: Iterable[Measured]) -> list[str]:
    """Kinds of night that every seed of every repository has."""
    seeds = [seed for each in measured for seed in each.seeds]
    return [kind for kind in KINDS if all(kind in seed for seed in seeds)]


def gains(repository: Measured, kind: str, part: str, measure: str, new: str, old: str, *, gated: bool) -> Gains | None:
    """Of the queries that every seed was asked; None where there are none.

    Gated, a refused candidate leaves the base in its place, in the same system: `fused_base` for `fused_candidate`.
    """
    slices = [seed[kind].get(part) or {} for seed in repository.seeds]
    if not all(slices) or not slices[0]["query_ids"]:
        return None
    rows = []
    for seed, found in zip(repository.seeds, slices, strict=True):
        live = new.replace("candidate", "base") if gated and not seed[kind]["promoted"] else new
        rows.append(100.0 * (np.asarray(found[measure][live]) - np.asarray(found[measure][old])))
    return Gains(np.mean(rows, axis=0), tuple(slices[0]["groups"]))


def macro(parts: Sequence[Gains]) -> tuple[float, float, float]:
    """Mean over repositories, with its 95% interval."""
    random = np.random.default_rng(20261126)
    drawn = np.zeros(RESAMPLES)
    for part in parts:
        sums, sizes = cluster_sums(part.values, part.groups)
        places = random.integers(0, len(sums), (RESAMPLES, len(sums)))
        drawn += sums[places].sum(axis=1) / sizes[places].sum(axis=1) / len(parts)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean([part.values.mean() for part in parts])), float(low), float(high)


def forgetting(repositories: Iterable[Measured], kind: str, part: str, measure: str) -> tuple[float, float, float]:
    """Gain on a general set, `guard` or an external one: mean over repositories of the mean over seeds; the interval
    redraws repositories."""
    means = []
    for repository in repositories:
        found = [({"guard": seed[kind]["guard"]} | seed[kind]["external"])[part][measure] for seed in repository.seeds]
        each = [100 * (np.mean(systems["candidate"]) - np.mean(systems["base"])) for systems in found]
        means.append(float(np.mean(each)))
    random = np.random.default_rng(20261126)
    drawn = np.asarray(means)[random.integers(0, len(means), (RESAMPLES, len(means)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean(means)), float(low), float(high)


def _said(interval: tuple[float, float, float]) -> str:
    return "{:+.1f} [{:.1f}, {:.1f}]".format(*interval)


def _collected(repositories: Iterable[Measured], kind: str, *what: str, gated: bool = False) -> list[Gains]:
    found = (gains(repository, kind, *what, gated=gated) for repository in repositories)
    return [part for part in found if part is not None]


def _goal_table(sets: dict[str, list[Measured]]) -> list[str]:
    kinds = kinds_of(each for repositories in sets.values() for each in repositories)
    ungated = " | ".join(f"{kind}, ungated" for kind in kinds)
    lines = [f"| goal | | set | night, gated | {ungated} |", "|---|---|---|---" + "|---" * len(kinds) + "|"]
    wanted = [*GOALS, *((*row, None) for row in MORE)]
    for label, part, measure, new, old, goal in wanted:
        for name, repositories in sets.items():
            cells = [
                _said(macro(_collected(repositories, kind, part, measure, new, old, gated=gated)))
                for kind, gated in (("night", True), *((kind, False) for kind in kinds))
            ]
            lines.append(f"| {label} | {'' if goal is None else f'+{goal}'} | {name} | {' | '.join(cells)} |")
    for name, repositories in sets.items():
        for part in ("guard", *repositories[0].seeds[0]["night"]["external"]):
            for label, measure in (("R@10", "r10"), ("MRR@10", "mrr")):
                cells = [_said(forgetting(repositories, kind, part, measure)) for kind in kinds]
                least = "-0.3" if measure == "r10" else ""
                lines.append(f"| {part} {label} | {least} | {name} | | {' | '.join(cells)} |")
    return lines


def _absolute(sets: dict[str, list[Measured]]) -> list[str]:
    lines = [
        "| set | nights | base | BM25 | lexical | RRF | hybrid | fused | tuned | tuned RRF | tuned hybrid | tuned fused |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    systems = (
        "base", "bm25", "lexical", "rrf_base", "hybrid_base", "fused_base", "candidate", "rrf_candidate",
        "hybrid_candidate", "fused_candidate",
    )  # fmt: skip
    for name, repositories in sets.items():
        for kind in kinds_of(repositories):
            cells = []
            for system in systems:
                both = [
                    100
                    * np.mean(
                        [
                            np.mean(seed[kind]["commit"][measure][system])
                            for each in repositories
                            for seed in each.seeds[:3]
                        ]
                    )
                    for measure in ("r10", "mrr")
                ]
                cells.append("{:.1f}, {:.1f}".format(*both))
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} |")
    return lines


def _repository_table(repositories: list[Measured]) -> list[str]:
    kinds = kinds_of(repositories)
    columns = [f"{kind} R@10 | MRR | fused R@10 over weighted, over fused base | | guard" for kind in kinds]
    lines = [
        f"| repository | corpus | rows {', '.join(kinds)} | queries | promoted | {' | '.join(columns)} |",
        "|---" * (5 + 5 * len(kinds)) + "|",
    ]
    for each in repositories:
        cells = []
        for kind in kinds:
            for _, part, measure, new, old, _ in (GOALS[0], GOALS[3], GOALS[1], GOALS[2]):
                found = gains(each, kind, part, measure, new, old, gated=False)
                cells.append(
                    _said(macro([found]))
                    if found and measure == "r10" and new == "candidate"
                    else f"{found.values.mean():+.1f}"
                    if found
                    else ""
                )
            cells.append(f"{forgetting([each], kind, 'guard', 'r10')[0]:+.1f}")
        promoted = sum(seed["night"]["promoted"] for seed in each.seeds)
        queries = len(each.seeds[0]["night"]["commit"]["query_ids"])
        rows = ", ".join(str(each.seeds[0][kind]["rows"]) for kind in kinds)
        lines.append(
            f"| {each.short} | {each.facts['corpus']} | {rows} | {queries} | {promoted} of {len(each.seeds)} | {' | '.join(cells)} |"
        )
    return lines


def _touched(repositories: list[Measured], kind: str) -> list[str]:
    """Functions that a training row taught, and those that none did."""
    lines = []
    for label, wanted in (("taught", True), ("never taught", False)):
        for measure in ("r10", "mrr"):
            parts = []
            for each in repositories:
                found = gains(each, kind, "commit", measure, "candidate", "base", gated=False)
                if found is None:
                    continue
                taught = set(each.seeds[0][kind]["touched"])
                keep = [
                    place
                    for place, query in enumerate(each.seeds[0][kind]["commit"]["query_ids"])
                    if (query in taught) == wanted
                ]
                if keep:
                    parts.append(Gains(found.values[keep], tuple(found.groups[place] for place in keep)))
            asked = sum(len(part.values) for part in parts)
            lines.append(f"| {kind} | {label} | {asked} | {measure} | {_said(macro(parts))} |")
    return lines


def _docs(repositories: list[Measured]) -> list[str]:
    large = [each for each in repositories if each.facts["corpus"] > LARGE_CORPUS]
    parts = [
        (each, found)
        for each in large
        if (found := gains(each, "night", "docstring", "mrr", "candidate", "base", gated=False))
        and len(found.values) >= 30
    ]
    return [
        f"| {each.short} | {each.facts['corpus']} | {len(found.values)} | {_said(macro([found]))} |"
        for each, found in parts
    ]


def _worse(repositories: list[Measured], kind: str, *, gated: bool) -> str:
    worse = []
    for each in repositories:
        found = gains(each, kind, "commit", "r10", "candidate", "base", gated=gated)
        if found is not None and found.values.mean() < 0:
            worse.append(f"{each.short} ({_said(macro([found]))})")
    return ", ".join(worse) or "none"


def plot(repositories: list[Measured], path: Path) -> None:
    """Gain in recall@10 against rows to learn from and functions to search."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=90)
    for axes, label, of in (
        (figure.add_subplot(1, 2, 1), "training rows", lambda each, kind: each.seeds[0][kind]["rows"]),
        (figure.add_subplot(1, 2, 2), "functions in the corpus", lambda each, kind: each.facts["corpus"]),
    ):
        _points(axes, repositories, of)
        axes.set_xscale("log")
        axes.set_xticks(TICKS, [f"{tick:,}" for tick in TICKS])
        axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_ylabel("gain in recall@10, points")
        axes.axhline(0, color="gray", linewidth=0.8)
        axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


def _points(axes: Any, repositories: list[Measured], of: Callable[[Measured, str], float]) -> None:
    for kind, colour in zip(kinds_of(repositories), ("tab:blue", "tab:orange"), strict=False):
        found = [(each, gains(each, kind, "commit", "r10", "candidate", "base", gated=False)) for each in repositories]
        points = [(of(each, kind), float(part.values.mean()), each.short) for each, part in found if part]
        axes.scatter([x for x, _, _ in points], [y for _, y, _ in points], s=16, color=colour, label=kind)
        for x, y, name in points if kind == "night" else ():
            axes.annotate(name, (x, y), fontsize=6, xytext=(2, 2), textcoords="offset points")


def write_report(work: Path, output: Path | None, *, runs: str = "seed") -> str:
    """The report's text; written to `output` with its plot beside it when that is given."""
    measured = read(work, runs)
    sets = {name: [each for each in measured if each.name in members] for name, members in SETS.items()}
    sets["all"] = measured
    sets = {f"{name} ({len(found)})": found for name, found in sets.items() if found}
    dials = measured[0].seeds[0]["night"]["recipe"]
    recipe = {key: dials.get(key) for key in DIALS}
    seconds = [seed["night"]["training_seconds"] for each in measured for seed in each.seeds]
    lines = [
        f"Seeds: {len(measured[0].seeds)}. Recipe: {recipe}. Machine: {measured[0].seeds[0]['machine']}.", "",
        *_goal_table(sets), "",
        "Repositories that end worse than the base (R@10, mean of seeds): "
        f"night, gated: {_worse(measured, 'night', gated=True)}; "
        + "; ".join(f"{kind}, ungated: {_worse(measured, kind, gated=False)}" for kind in kinds_of(measured)) + ".", "",
        "## Absolute figures (R@10, MRR@10)", "", *_absolute(sets), "",
        "## Each repository (ungated)", "", *_repository_table(measured), "",
        "## Functions that training knew, and others", "", "| kind | functions | queries | measure | gain |", "|---|---|---|---|---|",
        *(line for kind in kinds_of(measured) for line in _touched(measured, kind)), "",
        f"## Docstring queries on corpora of more than {LARGE_CORPUS} functions (held out by file)", "",
        "| repository | corpus | queries | MRR@10 gain |", "|---|---|---|---|", *_docs(measured), "",
        f"Training took {min(seconds):.0f} to {max(seconds):.0f} s, {np.median(seconds):.0f} in the middle.",
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    if output is not None:
        image = output.with_suffix(".png")
        plot(measured, image)
        output.write_text(text + f"\n![Gain against rows and corpus]({image.name})\n", encoding="utf-8")
    return text
