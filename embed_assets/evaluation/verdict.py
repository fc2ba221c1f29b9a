"""What the gate says of a candidate: yes or no, every rule with its numbers, and the figures behind them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One condition of the gate, and whether it holds."""

    name: str
    passed: bool
    sentence: str
    """For people, with the numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """The rules of one asset check, together."""

    name: str
    rules: tuple[Rule, ...]

    @property
    def passed(self) -> bool:
        """All rules hold. A check without rules proves nothing."""
        return bool(self.rules) and all(rule.passed for rule in self.rules)

    @property
    def description(self) -> str:
        """What failed, if anything did; else what holds."""
        told = [rule for rule in self.rules if not rule.passed] or self.rules
        return "; ".join(rule.sentence for rule in told)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The gate's decision on one report."""

    candidate_id: str
    report_digest: str
    checks: Mapping[str, Check]
    """`recall_beats_live`, `guard_not_regressed`, `not_trained_on_the_test`."""
    deciding_slice: str
    """Name of the slice that decided; empty where none was large enough."""
    figures: Mapping[str, float]
    """Shares between 0 and 1, except p-values and counts; names are stable, so that they plot over nights."""

    @property
    def promote(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks.values())

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every rule with its numbers, the failed ones first."""
        rules = [rule for check in self.checks.values() for rule in check.rules]
        failed = [f"FAILED {rule.sentence}" for rule in rules if not rule.passed]
        return (*failed, *(f"passed {rule.sentence}" for rule in rules if rule.passed))

    def to_json(self) -> dict[str, Any]:
        """The document of verdict.json."""
        return {
            "candidate_id": self.candidate_id,
            "report_digest": self.report_digest,
            "promote": self.promote,
            "reasons": list(self.reasons),
            "deciding_slice": self.deciding_slice,
            "figures": dict(self.figures),
            "checks": {
                name: {"passed": check.passed, "description": check.description} for name, check in self.checks.items()
            },
        }
