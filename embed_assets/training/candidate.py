"""Runs one training job from the pairs to a candidate's folder: whole, or not at all."""

import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from embed_assets.checkpoints.warm_start import WarmStart, read_warm_start
from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.load import choose_device, load_encoder
from embed_assets.encoder.save import save_model
from embed_assets.files import new_directory, point_link, write_json
from embed_assets.records import NEGATIVE_SCHEMA, REHEARSAL_SCHEMA, query_digest
from embed_assets.training.adapter import merged_encoder, save_adapter, scale_adapter
from embed_assets.training.curve import StepRecord, append_record, write_curve
from embed_assets.training.data import TrainingData, prepare, read_beside, read_pairs
from embed_assets.training.errors import TrainingError
from embed_assets.training.job import TrainingJob
from embed_assets.training.lexical_teacher import LexicalTeacher, lexical_teacher
from embed_assets.training.loop import TrainingResult, train
from embed_assets.training.mining import with_mined_negatives
from embed_assets.training.ranks import Ranks, join_ranks
from embed_assets.training.rehearsal import Rehearsal, prepare_rehearsal
from embed_assets.training.validation import validation_set

MERGE_TOLERANCE = 2e-3
"""Largest change of a vector's direction (1 - cosine) between the trained and the merged model, on a CPU in float32."""
VERSIONED = ("torch", "transformers", "peft", "tokenizers", "numpy", "polars", "bm25s")
Observe = Callable[[StepRecord, int], None]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Everything that the loop needs, loaded."""

    encoder: Encoder
    pairs: pl.DataFrame
    """Training rows."""
    data: TrainingData
    validation: TrainingData | None
    rehearsal: Rehearsal | None = None
    teacher: LexicalTeacher | None = None
    """What has a share in the loss beside the labels."""
    start: WarmStart | None = None
    """The adapter that is continued."""


def run_job(job: TrainingJob, observe: Observe = lambda record, steps: None) -> dict[str, Any]:
    """Trains, merges, writes the candidate and points the link at it; returns what training.json holds.

    Raises:
        TrainingError: the data, the recipe or the run is unsound; nothing is left behind.
        ModelError: the base model cannot be loaded.
    """
    # Read when CUDA starts. Memory then grows in place, and the plan's last few hundredths are not lost in gaps.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    ranks = join_ranks(job.device if job.device != "auto" else choose_device("auto").type)
    prepared = load_inputs(job)
    run_directory = Path(job.run_directory)
    run_directory.mkdir(parents=True, exist_ok=True)
    live_curve = run_directory / "curve.jsonl"
    live_curve.unlink(missing_ok=True)

    def follow(record: StepRecord, steps: int) -> None:
        if ranks.leads:
            append_record(live_curve, record)
            observe(record, steps)

    result = train(
        prepared.encoder,
        prepared.data,
        job.recipe,
        start=prepared.start,
        rehearsal=prepared.rehearsal,
        teacher=prepared.teacher,
        validation=validation_set(prepared.validation, prepared.data, seed=job.recipe.seed),
        path=job.path,
        ranks=ranks,
        observe=follow,
        progress_file=Path(job.progress_file) if job.progress_file else None,
        run=job.input_digest,
    )
    if not ranks.leads:
        return {}
    summary = write_candidate(job, prepared, result, ranks)
    if job.progress_file:
        Path(job.progress_file).unlink(missing_ok=True)
    return summary


def load_inputs(job: TrainingJob) -> Prepared:
    """Base model, tokenised rows and the adapter to start from of a job.

    Raises:
        TrainingError: the pairs cannot be read, or there are too few; the adapter is not the one that was planned.
        ModelError: the base model cannot be loaded.
    """
    start = _planned_start(job)
    encoder = load_encoder(Path(job.base_path), device=job.device, max_tokens=job.max_tokens, threads=job.threads)
    started = time.monotonic()
    frame = read_pairs(Path(job.pairs), max_pairs=job.max_pairs)
    pairs = frame.filter(pl.col("split") == "train")
    corpus = read_beside(Path(job.negatives), NEGATIVE_SCHEMA) if job.negatives else None
    if corpus is not None and job.recipe.mined:
        pairs = with_mined_negatives(encoder, pairs, corpus)
    data = prepare(encoder, pairs, hard_negatives=job.recipe.hard_negatives)
    held_out = frame.filter(pl.col("split") == "validation")
    validation = prepare(encoder, held_out, hard_negatives=0) if len(held_out) >= 2 else None
    logger.info(
        "%d training rows of %.0f tokens, %d validation rows, %d texts cut to %d tokens, tokenised in %.1f s",
        len(data), data.tokens_per_row, len(held_out), data.truncated, encoder.max_tokens, time.monotonic() - started,
    )  # fmt: skip
    rehearsal = _rehearsal(job, encoder, len(data))
    teacher = _teacher(job, data, corpus)
    return Prepared(
        encoder=encoder, pairs=pairs, data=data, validation=validation, rehearsal=rehearsal, teacher=teacher,
        start=start,
    )  # fmt: skip


def _teacher(job: TrainingJob, data: TrainingData, corpus: pl.DataFrame | None) -> LexicalTeacher | None:
    if corpus is None or not job.recipe.lexical_share:
        return None
    return lexical_teacher(data, corpus["text"].to_list(), share=job.recipe.lexical_share)


def _rehearsal(job: TrainingJob, encoder: Encoder, rows: int) -> Rehearsal | None:
    if not job.rehearsal:
        return None
    recipe = job.recipe
    steps = recipe.epochs * -(-rows // recipe.batch_size)
    return prepare_rehearsal(
        encoder, read_beside(Path(job.rehearsal), REHEARSAL_SCHEMA),
        steps=steps, batch_size=recipe.batch_size, weight=recipe.rehearsal, seed=recipe.seed,
    )  # fmt: skip


def _planned_start(job: TrainingJob) -> WarmStart | None:
    if not job.start_from:
        return None
    start = read_warm_start(Path(job.start_from))
    if start.digest != job.start_digest:
        raise TrainingError(f"training.start_from: {job.start_from} has changed since this run was planned; run again")
    return start


def write_candidate(job: TrainingJob, prepared: Prepared, result: TrainingResult, ranks: Ranks) -> dict[str, Any]:
    """Scales, saves and merges the adapter; the folder takes its name when it is complete."""
    scale_adapter(prepared.encoder.model, job.recipe.delta_scale)
    trained = _sampled_vectors(prepared.encoder, prepared)
    _drop_stacks(prepared.encoder)
    output = Path(job.output)
    with new_directory(output) as folder:
        save_adapter(result.adapted, folder / "adapter")
        merged = merged_encoder(Path(job.base_path), folder / "adapter", max_tokens=job.max_tokens)
        _require_same_vectors(trained, _sampled_vectors(merged, prepared))
        _drop_stacks(merged)
        (folder / "model").mkdir()
        save_model(merged, folder / "model")
        write_curve(folder / "curve.jsonl", result.curve)
        summary = summarise(job, prepared, result, ranks)
        write_json(folder / "training.json", summary)
    if job.latest_link:
        point_link(Path(job.latest_link), output)
    return summary


def summarise(job: TrainingJob, prepared: Prepared, result: TrainingResult, ranks: Ranks) -> dict[str, Any]:
    """The candidate's training.json."""
    last = result.curve[-max(1, len(result.curve) // 10) :]
    start = prepared.start
    queries = {query_digest(text) for text in prepared.pairs["query"].to_list()}
    rows = sum(1 for _ in result.curve) and len(prepared.data) * job.recipe.epochs
    return {
        "candidate_id": job.candidate_id,
        "input_digest": job.input_digest,
        "pairs_digest": job.pairs_digest,
        "cutoff": max(job.cutoff, start.cutoff_for(_newest_rows(prepared)) if start else 0),
        "learnt_until": learnt_until(job, prepared),
        "started_from": {"candidate_id": start.start_id, "digest": start.digest} if start else None,
        "rows": len(prepared.data),
        "lexical_teacher": prepared.teacher is not None,
        "rehearsed": len(prepared.rehearsal.query_tokens) if prepared.rehearsal else 0,
        "tokens_per_row": round(prepared.data.tokens_per_row, 1),
        "truncated_texts": prepared.data.truncated,
        "query_digests": sorted(queries | (start.query_digests if start else set())),
        "base_model": job.base_alias,
        "base_name": job.base_name,
        "base_revision": job.base_revision,
        "base_digest": job.base_digest,
        "base_licence": job.base_licence,
        "max_tokens": job.max_tokens,
        "recipe": job.recipe.to_json(),
        "expectation": job.expectation,
        "steps": len(result.curve),
        "seconds": round(result.seconds, 1),
        "samples_per_second": round(rows / max(result.seconds, 1e-9), 2),
        "first_loss": result.curve[0].loss,
        "final_loss": float(np.mean([record.loss for record in last])),
        "validation_mrr_before": result.validation_before,
        "validation_mrr_after": result.validation_after,
        "best_epoch": result.best_epoch,
        "path": result.path,
        "precision": result.precision,
        "memory_plan": result.plan.reason,
        "device": str(prepared.encoder.device),
        "ranks": ranks.count,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONED}},
    }


def learnt_until(job: TrainingJob, prepared: Prepared) -> dict[str, int]:
    """Repository -> the latest T up to which this adapter, or one that it continues, learnt from its history.

    Its newest commit where there is no T: sides go by file, or the rows came without a store (`embed-assets train`).
    """
    inherited = prepared.start.learnt_until if prepared.start else {}
    newest = _newest_rows(prepared)
    return {**inherited, **{name: max(job.cutoff, inherited.get(name, 0), newest[name]) for name in newest}}


def _newest_rows(prepared: Prepared) -> dict[str, int]:
    """Repository -> when its newest row was written, 0 without a date; a pairs file of one's own may name none."""
    pairs = prepared.pairs
    if "repository" not in pairs.columns:
        return {}
    newest = pairs.drop_nulls("repository").group_by("repository").agg(pl.col("written_at").max()).sort("repository")
    return {name: int(written_at or 0) for name, written_at in newest.iter_rows()}


def _drop_stacks(encoder: Encoder) -> None:
    """Frees what the CPU's paths prepared: copies of all layers, which are too many beside a second model."""
    from embed_assets.encoder.flat_encode import drop_encoding_stack
    from embed_assets.encoder.flat_lora import drop_lora_stack

    drop_encoding_stack(encoder)
    drop_lora_stack(encoder)


def _sampled_vectors(encoder: Encoder, prepared: Prepared) -> np.ndarray | None:  # (texts, dim)
    """A few texts' vectors; None where training had a lower precision: the evaluation judges the artifact itself."""
    if prepared.encoder.device.type != "cpu":
        return None
    return encoder.encode_rows(prepared.data.query_tokens[:4] + prepared.data.passage_tokens[:4])


def _require_same_vectors(trained: np.ndarray | None, merged: np.ndarray | None) -> None:
    """The artifact is what was trained."""
    if trained is None or merged is None:
        return
    cosines = (trained * merged).sum(axis=1)
    if float(cosines.min()) < 1.0 - MERGE_TOLERANCE:
        raise TrainingError(
            f"the merged model is not the trained one: cosine {cosines.min():.4f}; please report this with the recipe"
        )
