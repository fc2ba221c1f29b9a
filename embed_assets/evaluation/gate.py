"""The promotion gate: one pure function from a recall report to a verdict. docs/gate.md explains it to users.

It reads no file, no clock and no model. Dagster's checks and `checkpoints.promote` call the same function.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from embed_assets.evaluation.judged import COMMIT, DOCSTRING, GUARD, judged_queries, pooled
from embed_assets.evaluation.metrics import Doubles, mean_recall, mean_reciprocal_rank, reciprocal_rank
from embed_assets.evaluation.significance import bootstrap_interval, minimum_detectable_gain, randomisation_p
from embed_assets.evaluation.soundness import GateError, require_sound
from embed_assets.evaluation.verdict import Check, Rule, Verdict
from embed_assets.records import RecallReport, SliceReport
from embed_assets.settings import GateSettings

__all__ = ["GateError", "decide"]

ROUNDING = 1e-12
"""Means of floating-point numbers this close are equal."""


class _Comparison(NamedTuple):
    """Candidate against live on one slice; gains are shares, above zero when the candidate is better."""

    queries: int
    live: float
    candidate: float
    gain: float
    p_gain: float
    p_loss: float
    interval: tuple[float, float]
    live_recall: float
    candidate_recall: float
    differences: Doubles
    groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """What the rules look at."""

    report: RecallReport
    policy: GateSettings
    level: float
    """`alpha` divided by the attempt."""


def decide(report: RecallReport, policy: GateSettings) -> Verdict:
    """Judges a candidate against the live model on the same frozen queries, dense retrieval only.

    Raises:
        GateError: the report contradicts itself (ranks outside the corpus, lists of different lengths, NaN ...).
    """
    require_sound(report)
    case = _Case(report=report, policy=policy, level=policy.alpha / report.attempt)
    kinds = judged_queries(report, policy)
    deciding = pooled(kinds) if kinds else None
    guard = _large_enough(report.slice(GUARD), policy)
    decided = _compare(deciding) if deciding else None
    guarded = _compare(guard) if guard else None
    checks = (
        Check(name="recall_beats_live", rules=_recall_rules(case, deciding, decided) + _kind_rules(case, kinds)),
        Check(name="guard_not_regressed", rules=_guard_rules(case, guarded)),
        Check(name="not_trained_on_the_test", rules=(_lineage_rule(report),)),
    )
    return Verdict(
        candidate_id=report.candidate_id,
        report_digest=report.digest,
        checks={check.name: check for check in checks},
        deciding_slice=deciding.name if deciding else "",
        figures=_figures(case, deciding, decided, guarded),
    )


def _large_enough(part: SliceReport | None, policy: GateSettings) -> SliceReport | None:
    return part if part is not None and len(part.query_ids) >= policy.minimum_queries else None


def _compare(part: SliceReport) -> _Comparison:
    live, candidate = part.ranks["live"], part.ranks["candidate"]
    differences = reciprocal_rank(candidate) - reciprocal_rank(live)  # (queries,)
    return _Comparison(
        queries=len(part.query_ids),
        live=mean_reciprocal_rank(live),
        candidate=mean_reciprocal_rank(candidate),
        gain=float(differences.mean()),
        p_gain=randomisation_p(differences, part.group_ids),
        p_loss=randomisation_p(-differences, part.group_ids),
        interval=bootstrap_interval(differences, part.group_ids),
        live_recall=mean_recall(live),
        candidate_recall=mean_recall(candidate),
        differences=differences,
        groups=part.group_ids,
    )


def _recall_rules(case: _Case, part: SliceReport | None, seen: _Comparison | None) -> tuple[Rule, ...]:
    report, policy = case.report, case.policy
    other = Rule(
        name="another_model",
        passed=report.candidate_digest != report.live_digest,
        sentence=f"candidate {report.candidate_id} and live {report.live_id} are "
        + ("two models" if report.candidate_digest != report.live_digest else "the same model, file by file"),
    )
    if part is None or seen is None:
        return (other, _too_few(case))
    smallest = _points(_detectable(case, seen))
    gain = Rule(
        name="gain",
        passed=seen.gain >= policy.minimum_gain - ROUNDING and seen.gain > ROUNDING,
        sentence=f"mean reciprocal rank@10 on {seen.queries:,} {part.name} queries: live {seen.live:.1%}, candidate "
        f"{seen.candidate:.1%}, gain {_signed(seen.gain)} (95% interval {_signed(seen.interval[0])} to "
        f"{_signed(seen.interval[1])}); at least {_points(policy.minimum_gain)} is asked for",
    )
    level = f"{policy.alpha:g}" + (f" / {report.attempt} = {case.level:.2g}" if report.attempt > 1 else "")
    chance = Rule(
        name="beyond_chance",
        passed=seen.p_gain <= case.level,
        sentence=f"a gain as large comes by chance with p = {seen.p_gain:.2g}; at most {level} is allowed"
        + (f" at the {_ordinal(report.attempt)} attempt against this live model" if report.attempt > 1 else "")
        + f" (this benchmark shows gains of {smallest} or more four times in five)",
    )
    recall = Rule(
        name="recall_at_10",
        passed=seen.candidate_recall >= seen.live_recall - policy.recall_tolerance - ROUNDING,
        sentence=f"recall@10: live {seen.live_recall:.1%}, candidate {seen.candidate_recall:.1%}; "
        + (f"it may fall by {_points(policy.recall_tolerance)}" if policy.recall_tolerance else "it must not fall"),
    )
    return (other, gain, chance, recall)


def _kind_rules(case: _Case, kinds: tuple[SliceReport, ...]) -> tuple[Rule, ...]:
    """Where two kinds of queries decide together, a gain on one must not pay for a loss on the other."""
    if len(kinds) < 2:
        return ()
    rules = []
    for part in kinds:
        seen = _compare(part)
        rules.append(
            Rule(
                name=f"{part.name}_not_worse",
                passed=seen.gain >= -ROUNDING or seen.p_loss > case.policy.alpha,
                sentence=f"{seen.queries:,} {part.name} queries alone: live {seen.live:.1%}, candidate "
                f"{seen.candidate:.1%}, {_signed(seen.gain)}; a loss as large comes by chance with p = "
                f"{seen.p_loss:.2g}, below {case.policy.alpha:g} it would count",
            )
        )
    return tuple(rules)


def _too_few(case: _Case) -> Rule:
    """Says what was there, what is asked for, and what it could prove."""
    policy = case.policy
    counts = {name: _count(case.report.slice(name)) for name in (COMMIT, DOCSTRING)}
    most = sum(counts.values())
    planned = minimum_detectable_gain(np.zeros(most), range(most), alpha=case.level)
    could = f"{most} queries could show a gain of {_points(planned)} or more" if most else "nothing can be shown"
    return Rule(
        name="enough_queries",
        passed=False,
        sentence=f"{counts[COMMIT]} commit and {counts[DOCSTRING]} docstring queries are too few: "
        f"{policy.minimum_queries} together are asked for ({could}); add repositories or wait for more commits",
    )


def _guard_rules(case: _Case, seen: _Comparison | None) -> tuple[Rule, ...]:
    policy = case.policy
    if seen is None:
        found = _count(case.report.slice(GUARD))
        return (
            Rule(
                name="guard_present",
                passed=False,
                sentence=f"the guard against forgetting has {found} queries, {policy.minimum_queries} are asked for; "
                "build the pairs again, which writes it",
            ),
        )
    margin = Rule(
        name="guard_margin",
        passed=seen.gain >= -policy.guard_margin - ROUNDING,
        sentence=f"mean reciprocal rank@10 on {seen.queries:,} guard queries: live {seen.live:.1%}, candidate "
        f"{seen.candidate:.1%}, change {_signed(seen.gain)}; a loss of at most {_points(policy.guard_margin)} is "
        "allowed",
    )
    loss = Rule(
        name="guard_chance",
        passed=seen.p_loss > policy.alpha or seen.gain >= 0,
        sentence=f"a loss as large on the guard comes by chance with p = {seen.p_loss:.2g}; "
        f"below {policy.alpha:g} it counts as forgetting",
    )
    return (margin, loss)


def _lineage_rule(report: RecallReport) -> Rule:
    said = "; ".join(report.leaks[:3]) or "neither candidate nor live model was trained on a query asked here"
    return Rule(name="lineage", passed=not report.leaks, sentence=said)


def _figures(
    case: _Case, part: SliceReport | None, seen: _Comparison | None, guarded: _Comparison | None
) -> dict[str, float]:
    figures: dict[str, float] = {"attempt": float(case.report.attempt), "p_allowed": case.level}
    if part is not None and seen is not None:
        figures |= {
            "queries": float(seen.queries),
            "mrr_at_10_base": mean_reciprocal_rank(part.ranks["base"]),
            "mrr_at_10_live": seen.live,
            "mrr_at_10_candidate": seen.candidate,
            "recall_at_10_base": mean_recall(part.ranks["base"]),
            "recall_at_10_live": seen.live_recall,
            "recall_at_10_candidate": seen.candidate_recall,
            "gain": seen.gain,
            "gain_low": seen.interval[0],
            "gain_high": seen.interval[1],
            "p_gain": seen.p_gain,
            "minimum_detectable_gain": _detectable(case, seen),
        }
    if guarded is not None:
        figures |= {
            "guard_queries": float(guarded.queries),
            "guard_mrr_at_10_live": guarded.live,
            "guard_mrr_at_10_candidate": guarded.candidate,
            "guard_loss": -guarded.gain,
            "guard_p_loss": guarded.p_loss,
        }
    return figures


def _detectable(case: _Case, seen: _Comparison) -> float:
    return minimum_detectable_gain(seen.differences, seen.groups, alpha=case.level)


def _count(part: SliceReport | None) -> int:
    return len(part.query_ids) if part is not None else 0


def _points(share: float) -> str:
    """0.005 -> `0.5 points`."""
    return f"{100 * share:.1f} points"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f} points"


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"
