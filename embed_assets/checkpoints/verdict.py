"""The gate's word on a stored candidate: read its report, decide, and, once, keep the verdict beside it."""

from pathlib import Path

from embed_assets.evaluation.gate import decide
from embed_assets.evaluation.verdict import Verdict
from embed_assets.files import StoreError, read_json, write_json
from embed_assets.records import RecallReport
from embed_assets.settings import GateSettings
from embed_assets.store import Store


def judge(store: Store, policy: GateSettings, candidate_id: str) -> Verdict:
    """Judges a candidate after its evaluation and writes its verdict.json, which counts as one attempt.

    Raises:
        StoreError: there is no such candidate, or it has no report yet.
        ReportCorruptError: its report was altered.
        GateError: its report contradicts itself.
    """
    verdict = decide(read_report(store, candidate_id), policy)
    write_verdict(store, candidate_id, verdict)
    return verdict


def latest_verdict(store: Store, policy: GateSettings) -> Verdict:
    """What the gate says now of the latest candidate; writes nothing.

    Raises:
        StoreError: there is no candidate, or it has no report yet.
        ReportCorruptError: its report was altered.
        GateError: its report contradicts itself.
    """
    return decide(read_report(store, latest_candidate_id(store)), policy)


def read_report(store: Store, candidate_id: str) -> RecallReport:
    """
    Raises:
        StoreError: there is no such candidate, or it has no report yet.
        ReportCorruptError: its report was altered.
    """
    path = store.candidate(candidate_id) / "report.json"
    if not path.is_file():
        raise StoreError(f"candidate {candidate_id} has no report; evaluate it with `embed-assets evaluate`")
    return RecallReport.from_json(read_json(path))


def write_verdict(store: Store, candidate_id: str, verdict: Verdict) -> Path:
    """Writes `candidates/ID/verdict.json`: the candidate was judged, and how."""
    path = store.candidate(candidate_id) / "verdict.json"
    write_json(path, verdict.to_json())
    return path


def latest_candidate_id(store: Store) -> str:
    """
    Raises:
        StoreError: there is no candidate.
    """
    link = store.latest_candidate
    if not link.is_dir():
        raise StoreError(f"{link} does not exist: no candidate was trained yet; run `embed-assets run`")
    return link.resolve().name
