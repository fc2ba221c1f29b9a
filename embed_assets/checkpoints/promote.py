"""Promotion: the only way a candidate becomes live, with the gate asked again at the door.

Nobody's word is taken for it: not an asset check's, not a verdict on disk. The report is read and judged anew, and
everything it names must still be true. The order of the writes makes a crash harmless: the checkpoint's folder
appears whole, then the pointer moves, then the history tells it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embed_assets.checkpoints.live import BASE, Checkpoint, current_id, live_model, locked, record
from embed_assets.checkpoints.manifest import CheckpointCorruptError, read_manifest, verify, write_manifest
from embed_assets.checkpoints.verdict import latest_candidate_id, read_report, write_verdict
from embed_assets.encoder.digest import model_digest
from embed_assets.encoder.layout import ModelError
from embed_assets.evaluation.gate import GateError, decide
from embed_assets.evaluation.verdict import Verdict
from embed_assets.files import (
    FULL_DISK,
    DiskFullError,
    StoreError,
    directory_digests,
    new_directory,
    point_link,
    read_lines,
)
from embed_assets.records import RecallReport, ReportCorruptError
from embed_assets.settings import GateSettings
from embed_assets.store import Store

BESIDE_THE_MODEL = ("golden.safetensors", "report.json", "training.json")
"""Files of a candidate that every checkpoint carries."""


class PromotionRefusedError(RuntimeError):
    """The candidate may not replace the live model. `reasons` says why, one sentence each."""

    def __init__(self, candidate_id: str, reasons: tuple[str, ...], verdict: Verdict | None = None) -> None:
        super().__init__(f"candidate {candidate_id} is not promoted: " + "; ".join(reasons))
        self.candidate_id = candidate_id
        self.reasons = reasons
        self.verdict = verdict


class PromotionError(RuntimeError):
    """The promotion could not be carried out; the live model is unchanged."""


def promote(store: Store, candidate_id: str | None, policy: GateSettings) -> Checkpoint:
    """Makes a candidate (the latest when None) live, if its report is fresh and the gate passes it.

    Promoting what is live already changes nothing and returns it.

    Raises:
        PromotionRefusedError: no report, a stale or altered one, a changed model, or the gate's refusal.
        PromotionError: the disk is full or cannot be written.
        StoreError: there is no such candidate.
    """
    name = candidate_id if candidate_id is not None else latest_candidate_id(store)
    if not store.candidate(name).is_dir():
        raise StoreError(f"there is no candidate {name!r} under {store.candidates}")
    with locked(store), _disk_errors(store):
        report = _require_report(store, name)
        if current_id(store) == name:
            return _already_live(store, name, report)
        verdict = _require_passing(store, name, report, policy)
        path = store.checkpoint(name)
        if not path.exists():
            _write_checkpoint(store, name, report)
        checkpoint = Checkpoint(
            checkpoint_id=name, path=path, digest=_require_same(path, report), replaced=current_id(store)
        )
        write_verdict(store, name, verdict)
        point_link(store.checkpoint_latest, path)
        record(store, "promotion", checkpoint, reason=_summary(verdict), report_digest=report.digest)
        return checkpoint


def _require_report(store: Store, name: str) -> RecallReport:
    try:
        report = read_report(store, name)
    except (StoreError, ReportCorruptError) as error:
        raise PromotionRefusedError(name, (str(error),)) from error
    if report.candidate_id != name:
        raise PromotionRefusedError(name, (f"its report is about candidate {report.candidate_id}",))
    return report


def _require_passing(store: Store, name: str, report: RecallReport, policy: GateSettings) -> Verdict:
    """The verdict on a report that is still true of candidate, live model and benchmark."""
    stale = tuple(_untrue(store, name, report))
    if stale:
        raise PromotionRefusedError(name, stale)
    try:
        verdict = decide(report, policy)
    except GateError as error:
        raise PromotionRefusedError(name, (str(error),)) from error
    if not verdict.promote:
        write_verdict(store, name, verdict)
        failed = tuple(check.description for check in verdict.checks.values() if not check.passed)
        raise PromotionRefusedError(name, failed, verdict)
    return verdict


def _untrue(store: Store, name: str, report: RecallReport) -> Iterator[str]:
    """What the report says and is no longer so, in sentences."""
    again = "evaluate it again with `embed-assets evaluate`"
    candidate = store.candidate(name)
    try:
        directory_digests(candidate / "model")
        found = model_digest(candidate / "model")
    except (StoreError, ModelError) as error:
        found = f"unreadable ({error})"
    if found != report.candidate_digest:
        yield f"the model's files are not those that were evaluated: digest {found}, was {report.candidate_digest}"
    live = live_model(store)
    live_id, live_digest = (live.checkpoint_id, live.digest) if live else (BASE, report.live_digest)
    if (live_id, live_digest) != (report.live_id, report.live_digest):
        yield f"the report is stale: it compares with live model {report.live_id}, live is {live_id} now; {again}"
    for what, link, digest in (
        ("benchmark", store.current_benchmark, report.benchmark_digest),
        ("guard", store.guard_benchmark, report.guard_digest),
    ):
        current = link.resolve().name if link.is_dir() else "missing"
        if current != digest:
            yield f"the report is stale: it was made on {what} {digest or 'none'}, current is {current}; {again}"
    missing = [file for file in BESIDE_THE_MODEL if not (candidate / file).is_file()]
    if missing:
        yield f"the candidate is incomplete: {', '.join(missing)} missing; {again}"
    if any(event["id"] == name for event in read_lines(store.history)):
        yield f"it was live before and was replaced; bring it back with `embed-assets rollback --to {name}`"


def _write_checkpoint(store: Store, name: str, report: RecallReport) -> None:
    """Copies, never links: what happens to a candidate's files later cannot reach the checkpoint."""
    candidate = store.candidate(name)
    size = sum(file.stat().st_size for file in candidate.rglob("*") if file.is_file())
    store.checkpoints.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(store.checkpoints).free
    if free < size:
        raise PromotionError(
            f"{store.checkpoints} has {free / 2**20:,.0f} MiB free, the checkpoint needs {size / 2**20:,.0f} MiB; "
            "remove old candidates or checkpoints and promote again"
        )
    with new_directory(store.checkpoint(name)) as folder:
        _copy_files(candidate / "model", folder)
        _copy_files(candidate / "adapter", folder / "adapter")
        for file in BESIDE_THE_MODEL:
            shutil.copyfile(candidate / file, folder / file)
        write_manifest(folder, checkpoint_id=name, model_digest=report.candidate_digest, report_digest=report.digest)


def _copy_files(source: Path, target: Path) -> None:
    for file in sorted(source.rglob("*")):
        if file.is_file():
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def _require_same(path: Path, report: RecallReport) -> str:
    """The digest of the finished checkpoint, which is what was evaluated.

    Raises:
        PromotionRefusedError: it is another model, or was damaged since it was written.
    """
    try:
        verify(path)
        found = model_digest(path)
    except (CheckpointCorruptError, ModelError) as error:
        raise PromotionRefusedError(path.name, (str(error),)) from error
    if found != report.candidate_digest:
        raise PromotionRefusedError(
            path.name, (f"checkpoint {path.name} holds model {found}, evaluated was {report.candidate_digest}",)
        )
    return found


def _already_live(store: Store, name: str, report: RecallReport) -> Checkpoint:
    """Nothing to do but to finish the history, should a crash have come in between."""
    path = store.checkpoint(name)
    digest = _require_same(path, report)
    history = read_lines(store.history)
    if history and history[-1]["id"] == name:
        return Checkpoint(checkpoint_id=name, path=path, digest=digest, replaced=history[-1]["from"])
    checkpoint = Checkpoint(checkpoint_id=name, path=path, digest=digest, replaced=report.live_id)
    record(
        store, "promotion", checkpoint, reason="finished after an interruption",
        report_digest=read_manifest(path).report_digest,
    )  # fmt: skip
    return checkpoint


def _summary(verdict: Verdict) -> str:
    figures = verdict.figures
    return (
        f"mean reciprocal rank@10 {figures['mrr_at_10_live']:.1%} -> {figures['mrr_at_10_candidate']:.1%} on "
        f"{figures['queries']:.0f} {verdict.deciding_slice} queries, p = {figures['p_gain']:.2g}"
    )


@contextmanager
def _disk_errors(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = isinstance(error, DiskFullError) or error.errno in FULL_DISK
        what = "the disk is full" if full else "a file cannot be used"
        raise PromotionError(
            f"{what} while promoting under {store.checkpoints.parent} ({error}); nothing is lost: "
            "mend it and promote again"
        ) from error
