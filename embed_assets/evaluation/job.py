"""An evaluation job: one JSON document that says everything the evaluating process needs to know. Imports no torch."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embed_assets.encoder.digest import model_digest
from embed_assets.encoder.resolve import resolve
from embed_assets.evaluation.errors import EvaluationError
from embed_assets.files import StoreError, read_json
from embed_assets.records import BASE
from embed_assets.settings import Settings
from embed_assets.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationJob:
    """Which models to compare on what. Paths are absolute."""

    candidate_id: str
    candidate: str
    """Folder of the candidate; the report is written there."""
    base_name: str
    base_path: str
    max_tokens: int | None
    """Longest input of the base model, as the candidate was trained; a live checkpoint has its own."""
    live_id: str
    live_path: str
    live_digest: str
    """Of the files that are compared: promotion asks whether they are still the live ones."""
    benchmark: str
    guard: str
    """Empty where none was built."""
    external: list[str]
    """Benchmarks that are reported and decide nothing."""
    vectors: str
    """Folder of embedded texts that are kept for the next night."""
    attempt: int
    device: str
    threads: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_job(path: Path) -> EvaluationJob:
    """The job in the file `path`.

    Raises:
        EvaluationError: it is no evaluation job.
        StoreError: there is no such file, or it is no JSON.
    """
    document = read_json(path)
    try:
        return EvaluationJob(**document)
    except TypeError as error:
        raise EvaluationError(f"{path} is no evaluation job: {error}") from error


def plan_evaluation(settings: Settings, store: Store, candidate_id: str | None = None) -> EvaluationJob:
    """What it takes to evaluate a candidate (the latest when None) against what is live now.

    Raises:
        EvaluationError: there is no such candidate, or it is unfinished; there is no benchmark.
        StoreError: the live pointer is damaged.
        ModelError: the base model or the live model is not there.
    """
    candidate = _candidate(store, candidate_id)
    training = read_json(candidate / "training.json")
    base = resolve(training["base_name"], training["base_revision"])
    live = store.live_checkpoint()
    live_path = live or base.path
    live_digest = model_digest(live_path)
    if not store.current_benchmark.is_dir():
        raise EvaluationError(
            f"there is no benchmark at {store.current_benchmark}; materialise contrastive_pairs first"
        )
    return EvaluationJob(
        candidate_id=candidate.name,
        candidate=str(candidate.absolute()),
        base_name=training["base_model"] or training["base_name"],
        base_path=str(base.path),
        max_tokens=training.get("max_tokens"),
        live_id=live.name if live else BASE,
        live_path=str(live_path.absolute()),
        live_digest=live_digest,
        benchmark=str(store.current_benchmark.resolve()),
        guard=str(store.guard_benchmark.resolve()) if store.guard_benchmark.is_dir() else "",
        external=[str(link.resolve()) for link in store.external_benchmarks],
        vectors=str(store.vectors.absolute()),
        attempt=1 + refused_attempts(store, live_digest, candidate.name),
        device=settings.training.device,
        threads=settings.training.threads,
    )


def refused_attempts(store: Store, live_digest: str, candidate_id: str) -> int:
    """How many other candidates the gate refused against this live model.

    One whose verdict or report is damaged counts, which makes the gate stricter and never laxer, and is warned of.
    """
    refused = 0
    for path in sorted(store.candidates.glob("[!.]*/verdict.json")):
        if path.parent.is_symlink() or path.parent.name == candidate_id:
            continue
        report = path.with_name("report.json")
        try:
            if not read_json(path)["promote"] and report.is_file():
                refused += read_json(report)["live_digest"] == live_digest
        except (StoreError, KeyError, TypeError) as error:
            said = "the verdict or the report of candidate %s is damaged and counts as a refused attempt: %r"
            logger.warning(said, path.parent.name, error)
            refused += 1
    return refused


def _candidate(store: Store, candidate_id: str | None) -> Path:
    folder = store.latest_candidate.resolve() if candidate_id is None else store.candidate(candidate_id)
    if not folder.is_dir():
        said = "no candidate was trained yet" if candidate_id is None else f"there is no candidate {candidate_id!r}"
        raise EvaluationError(f"{said} under {store.candidates}; train one with `embed-assets run`")
    if not (folder / "training.json").is_file() or not (folder / "model").is_dir():
        reason = "is unfinished: training.json or model/ is missing"
        if (folder / "report.json").is_file():
            reason = "was evaluated and its weights were removed to make room (retention.candidates)"
        raise EvaluationError(f"candidate {folder.name} {reason}; train again")
    return folder
