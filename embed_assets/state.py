"""What is true right now, for `status` and the demo: the live model, its recall, the last candidate, the service.

It reads what the stages wrote and measures nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from embed_assets.checkpoints.live import live_model
from embed_assets.checkpoints.verdict import latest_candidate_id, read_report
from embed_assets.evaluation.gate import decide
from embed_assets.evaluation.metrics import mean_recall, mean_reciprocal_rank
from embed_assets.files import read_json, read_lines
from embed_assets.records import BASE, RecallReport
from embed_assets.serving.client import find_service
from embed_assets.settings import Settings
from embed_assets.store import Store


@dataclass(frozen=True, kw_only=True)
class State:
    """The state of one data directory, as plain values."""

    data_dir: str
    live: Mapping[str, Any]
    """`id` (`base` while nothing is promoted), `path`, `since`."""
    recall: Mapping[str, Any]
    """Slice -> `queries`, and `recall_at_10` and `mrr_at_10` of base and of what is live; empty at first."""
    candidate: Mapping[str, Any]
    """The latest candidate: `id`, `promote`, `reasons`, `started_from` (an id or nothing); empty at first."""
    service: Mapping[str, Any]
    """`url` and the `model` that answers; empty when no service runs."""
    history: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def text(self) -> str:
        lines = [f"data       {self.data_dir}", f"live       {self.live['id']}" + _since(self.live)]
        for name, row in self.recall.items():
            lines.append(
                f"  {name:17} MRR@10 {row['base']['mrr_at_10']:.1%} base, {row['live']['mrr_at_10']:.1%} live; "
                f"recall@10 {row['base']['recall_at_10']:.1%} base, {row['live']['recall_at_10']:.1%} live "
                f"({row['queries']} queries)"
            )
        if self.candidate:
            said = "promoted" if self.candidate["id"] == self.live["id"] else _verdict(self.candidate)
            origin = f", started from {self.candidate['started_from']}" if self.candidate["started_from"] else ""
            lines.append(f"candidate  {self.candidate['id']}{origin}: {said}")
            lines += [f"  - {reason}" for reason in self.candidate.get("reasons", ())]
        lines.append(
            f"service    {self.service['url']} answers with {self.service['model']}"
            if self.service
            else "service    not running"
        )
        return "\n".join(lines)


def state_of(settings: Settings) -> State:
    """Reads the state of the settings' data directory."""
    store = Store(settings.data_dir)
    history = tuple(read_lines(store.history))
    live = live_model(store)
    return State(
        data_dir=str(settings.data_dir),
        live={
            "id": live.checkpoint_id if live else BASE,
            "path": str(live.path) if live else "",
            "model": settings.model.name,
            "since": history[-1].get("at", "") if history else "",
        },
        recall=_recall(RecallReport.from_json(read_json(live.path / "report.json"))) if live else {},
        candidate=_candidate(store, settings),
        service=_service(store),
        history=history,
    )


def _recall(report: RecallReport) -> dict[str, Any]:
    """Figures of the report that the live checkpoint was promoted with: its candidate is what is live."""
    return {
        part.name: {
            "queries": len(part.query_ids),
            **{
                name: {
                    "recall_at_10": mean_recall(part.ranks[system], 10),
                    "mrr_at_10": mean_reciprocal_rank(part.ranks[system], 10),
                }
                for name, system in (("base", "base"), ("live", "candidate"))
            },
        }
        for part in report.slices
    }


def _candidate(store: Store, settings: Settings) -> dict[str, Any]:
    if not (store.latest_candidate / "report.json").exists():
        return {}
    candidate_id = latest_candidate_id(store)
    verdict = decide(read_report(store, candidate_id), settings.gate)
    start = read_json(store.latest_candidate / "training.json").get("started_from") or {}
    return {
        "id": candidate_id,
        "promote": verdict.promote,
        "reasons": list(verdict.reasons),
        "started_from": start.get("candidate_id", ""),
    }


def _service(store: Store) -> dict[str, Any]:
    service = find_service(store)
    if service is None:
        return {}
    return {"url": service.url, "model": service.status()["model"]}


def _since(live: Mapping[str, Any]) -> str:
    return f" since {live['since']}" if live.get("since") else " (the base model; nothing is promoted yet)"


def _verdict(candidate: Mapping[str, Any]) -> str:
    return "passes the gate" if candidate["promote"] else "refused"
