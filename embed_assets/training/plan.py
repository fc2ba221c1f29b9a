"""Is there anything to train, and how? The plan is made before a process is started for it; it imports no torch."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.checkpoints.live import current_id
from embed_assets.checkpoints.warm_start import WarmStart, configured_start
from embed_assets.encoder.digest import model_digest
from embed_assets.encoder.layout import parameter_count, read_layout
from embed_assets.encoder.resolve import ResolvedModel, resolve
from embed_assets.files import file_sha256, read_json, read_lines
from embed_assets.records import JUDGED_SOURCES, digest_of_json
from embed_assets.settings import Settings
from embed_assets.store import Store
from embed_assets.training.errors import TrainingError
from embed_assets.training.job import TrainingJob
from embed_assets.training.recipe import CODE_VERSION, FEW_ROWS, Recipe, derive_recipe, expectation
from embed_assets.training.warm_start import require_fitting

logger = logging.getLogger(__name__)

__all__ = ["Reuse", "TrainingJob", "Unchanged", "Unprovable", "build_job", "plan_training"]


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """Nothing to do: the same inputs were trained and judged before."""

    reason: str
    candidate_id: str


@dataclass(frozen=True, kw_only=True)
class Unprovable:
    """Not worth training: so few queries judge, or guard, that the gate would refuse any candidate."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Reuse:
    """Trained already, but not judged, or passed and not promoted: the night goes on with the evaluation."""

    reason: str
    candidate_id: str


def plan_training(
    settings: Settings, store: Store, *, model_name: str | None = None, force: bool = False
) -> TrainingJob | Reuse | Unchanged | Unprovable:
    """What this night's training is.

    Args:
        model_name: another base model than the settings name.
        force: train although nothing changed since the last candidate, or nothing could be proved.

    Raises:
        TrainingError: there are no pairs, or too few; what `training.start_from` names does not fit.
        WarmStartError: it is nothing to start from.
        ModelError: the base model is not there or cannot be used.
    """
    if not store.pairs.is_file():
        raise TrainingError(f"there are no training pairs at {store.pairs}; materialise contrastive_pairs first")
    manifest = read_json(store.pairs_manifest)
    if not force and (doubt := _unprovable(manifest, settings.gate.minimum_queries)):
        return doubt
    job = build_job(
        settings,
        pairs=store.pairs,
        pairs_digest=str(manifest["pairs_digest"]),
        negatives=store.pairs_negatives,
        rehearsal=store.pairs_rehearsal,
        cutoff=int(manifest["cutoff"]),
        model_name=model_name,
        candidates=store.candidates,
        latest_link=store.latest_candidate,
        runs=store.runs,
    )
    return job if force else _known(store, job) or job


def build_job(
    settings: Settings,
    *,
    pairs: Path,
    pairs_digest: str,
    negatives: Path | None = None,
    rehearsal: Path | None = None,
    cutoff: int,
    candidates: Path,
    runs: Path,
    latest_link: Path | None = None,
    model_name: str | None = None,
    max_pairs: int | None = None,
    output: Path | None = None,
) -> TrainingJob:
    """A job for the given pairs; `output` replaces the folder named by the candidate's id.

    Raises:
        TrainingError: too few rows, no LoRA targets are known for the model, or the start does not fit.
        WarmStartError: what `training.start_from` names is nothing to start from.
        ModelError: the base model is not there or cannot be used.
    """
    from embed_assets.training.data import read_pairs

    base = resolve(model_name or settings.model.name, settings.model.revision)
    if base.spec and base.spec.licence_warning:
        logger.warning("%s", base.spec.licence_warning)
    train = read_pairs(pairs, max_pairs=max_pairs).filter(pl.col("split") == "train")
    commit_share = float((train["source"] == "commit").mean() or 0.0) if len(train) else 0.0  # type: ignore[arg-type]
    start = configured_start(settings)
    recipe = _recipe(settings, base, len(train), commit_share, start, corpus_at_hand=negatives is not None)
    expected = expectation(len(train), commit_share)
    logger.log(logging.WARNING if len(train) < FEW_ROWS else logging.INFO, "%s", expected)
    base_digest = model_digest(base.path)
    if start:
        require_fitting(start, recipe, base_name=base.alias or base.name, base_digest=base_digest)
        logger.info("starts from the adapter of %s, rank %d, in %s", start.start_id, start.rank, start.path)
    layout = read_layout(base.path)
    max_tokens = settings.model.max_tokens or layout.max_tokens
    corpus, among = _beside_the_pairs(negatives, "lexical_share", wanted=recipe.mined or recipe.lexical_share > 0)
    rehearsed, kept = _beside_the_pairs(rehearsal, "rehearsal_weight", wanted=recipe.rehearsal > 0)
    decides = [CODE_VERSION, pairs_digest, among, kept, max_pairs, base_digest, max_tokens, recipe.to_json()]
    inputs = digest_of_json([*decides, *([start.digest] if start else [])])
    candidate_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{inputs[:8]}"
    return TrainingJob(
        candidate_id=candidate_id,
        input_digest=inputs,
        output=str((output or candidates / candidate_id).absolute()),
        latest_link=str(latest_link.absolute()) if latest_link else "",
        run_directory=str((runs / candidate_id).absolute()),
        progress_file=str((runs / f"progress-{inputs[:16]}.safetensors").absolute()),
        pairs=str(pairs.absolute()),
        pairs_digest=pairs_digest,
        negatives=corpus,
        rehearsal=rehearsed,
        cutoff=cutoff,
        max_pairs=max_pairs,
        base_name=base.name,
        base_alias=base.alias,
        base_path=str(base.path),
        base_revision=base.revision,
        base_digest=base_digest,
        base_licence=base.spec.licence if base.spec else "",
        start_from=str(start.path) if start else "",
        start_digest=start.digest if start else "",
        recipe=recipe,
        expectation=expected,
        max_tokens=max_tokens,
        device=settings.training.device,
        path=settings.training.path,
        threads=settings.training.threads,
    )


def _beside_the_pairs(file: Path | None, setting: str, *, wanted: bool) -> tuple[str, str]:
    """Path and digest of what the recipe wants beside the rows; both empty where there is none."""
    if not wanted:
        return "", ""
    if file is None:
        logger.warning("training.%s has no effect on pairs that come without a store's functions and docs", setting)
        return "", ""
    if not file.is_file():
        logger.warning("%s is not there: trained without it; materialise contrastive_pairs first", file)
        return "", ""
    return str(file.absolute()), file_sha256(file)


def _recipe(
    settings: Settings,
    base: ResolvedModel,
    rows: int,
    commit_share: float,
    start: WarmStart | None,
    *,
    corpus_at_hand: bool,
) -> Recipe:
    return derive_recipe(
        settings.training,
        rows=rows,
        commit_share=commit_share,
        model_type=read_layout(base.path).model_type,
        spec=base.spec,
        parameters=0 if base.spec else parameter_count(base.path),
        hard_negatives=settings.pairs.hard_negatives,
        start_rank=start.rank if start else 0,
        start_scale=start.delta_scale if start else 0.0,
        corpus_at_hand=corpus_at_hand,
    )


def _unprovable(manifest: Mapping[str, Any], least: int) -> Unprovable | None:
    held_out = {source: manifest["test_queries"].get(source, 0) for source in JUDGED_SOURCES}
    guard = manifest["guard_queries"]
    if sum(held_out.values()) < least:
        found = " and ".join(f"{queries} {source}" for source, queries in held_out.items())
        said = f"{found} queries are held out, and the gate asks for {least} together"
        remedy = "Add repositories, or wait for more commits"
    elif guard < least:
        said = f"{guard} queries guard against forgetting, and the gate asks for {least}"
        remedy = "Raise `pairs.guard_queries`, or lower `gate.minimum_queries`"
    else:
        return None
    return Unprovable(
        reason=f"not trained: {said}; it would refuse any candidate. {remedy}; `--force` trains all the same"
    )


def _known(store: Store, job: TrainingJob) -> Reuse | Unchanged | None:
    """What the last candidate says, if it was trained on exactly the same."""
    finished = store.latest_candidate / "training.json"
    if not finished.is_file():
        return None
    last = read_json(finished)
    if last.get("input_digest") != job.input_digest:
        return None
    candidate_id = str(last["candidate_id"])
    said = f"same pairs, base model and recipe as candidate {candidate_id}"
    verdict = store.latest_candidate / "verdict.json"
    if not verdict.is_file():
        return Reuse(reason=f"{said}, which was trained and not judged yet", candidate_id=candidate_id)
    were_live = {current_id(store), *(event["id"] for event in read_lines(store.history))}
    if read_json(verdict)["promote"] and candidate_id not in were_live:
        return Reuse(reason=f"{said}, which passed and was never promoted", candidate_id=candidate_id)
    return Unchanged(reason=f"{said}, which was trained and judged", candidate_id=candidate_id)
