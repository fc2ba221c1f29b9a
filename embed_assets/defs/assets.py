"""The five assets, each thin: load, call the stage, return what it counted as metadata."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from embed_assets.checkpoints.live import live_model
from embed_assets.checkpoints.promote import PromotionRefusedError, promote
from embed_assets.checkpoints.retention import prune
from embed_assets.checkpoints.verdict import judge
from embed_assets.defs import metadata
from embed_assets.defs.child import run_in_child
from embed_assets.defs.resources import Project
from embed_assets.doctor import require_health
from embed_assets.evaluation.job import plan_evaluation
from embed_assets.pairs.build import build_pairs
from embed_assets.serving.client import find_service
from embed_assets.settings import Settings
from embed_assets.snippets.collect import collect_snippets
from embed_assets.store import Store
from embed_assets.training.plan import Reuse, TrainingJob, Unchanged, Unprovable, plan_training

GROUP = "embed_assets"
OWNERS = ["team:ml-platform"]


class TrainingOverrides(dg.Config):
    """One run's own training dials, as the Launchpad shows them. An unset dial follows the settings."""

    model: str | None = Field(default=None, description="Base model: minilm, qodo, jina-v3, e5-large, a path or a name")
    epochs: int | None = Field(default=None, description="Passes over the training pairs; derived when unset")
    batch_size: int | None = Field(default=None, description="Rows that are each other's negatives; derived when unset")
    learning_rate: float | None = Field(default=None, description="Peak learning rate; derived when unset")
    device: str | None = Field(default=None, description="auto, cpu, cuda or mps")
    force: bool = Field(default=False, description="Train even when nothing changed, or nothing can be proved")

    def overrides(self) -> dict[str, Any]:
        return {
            "model.name": self.model,
            "training.epochs": self.epochs,
            "training.batch_size": self.batch_size,
            "training.learning_rate": self.learning_rate,
            "training.device": self.device,
        }


def _overrides_of(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """What this run asks of the adapter: a base model that is not there must be missed now, not in an hour."""
    given = run_config.get("ops", {}).get("finetuned_adapter", {}).get("config", {})
    return TrainingOverrides(**given).overrides()


@dg.op(description="Checks git, grammars, device, memory, disk and the base model before the night begins.")
def doctor(context: dg.OpExecutionContext, project: Project) -> dg.Output[None]:
    findings = require_health(project.settings(_overrides_of(context.run_config)))
    for finding in findings:
        context.log.info(finding.line)
    return dg.Output(None, metadata=metadata.of_doctor(findings))


@dg.op(
    ins={"healthy": dg.In(dg.Nothing)},
    description="Reads every repository's tree and takes its definitions out, parsing only what changed.",
)
def collect(context: dg.OpExecutionContext, project: Project) -> dg.Output[None]:
    manifest = collect_snippets(project.settings(), project.store)
    context.log.info(metadata.line_of_snippets(manifest))
    return dg.Output(None, metadata=metadata.of_snippets(manifest, project.store))


@dg.graph_asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"git", "parquet", "polars"},
    description="Functions, methods and classes of the team's repositories, with their documentation set apart.",
)
def code_snippets() -> None:
    return collect(healthy=doctor())  # type: ignore[no-any-return]


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"polars", "parquet"},
    deps=[code_snippets],
    description="(query, positive, hard negatives) rows on three sides, and the frozen benchmark that judges.",
)
def contrastive_pairs(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[None]:
    manifest = build_pairs(project.settings(), project.store)
    context.log.info(metadata.line_of_pairs(manifest))
    return dg.MaterializeResult(metadata=metadata.of_pairs(manifest, project.store))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pytorch", "huggingface", "python"},
    deps=[contrastive_pairs],
    output_required=False,
    pool="training",
    description="A LoRA adapter trained on the pairs, merged into the model that would be served, and its report.",
)
def finetuned_adapter(
    context: dg.AssetExecutionContext, config: TrainingOverrides, project: Project, child: dg.PipesSubprocessClient
) -> Iterator[dg.MaterializeResult[None]]:
    settings, store = project.settings(config.overrides()), project.store
    _make_room(context, settings, store)
    plan = plan_training(settings, store, force=config.force)
    if isinstance(plan, Unchanged | Unprovable):
        context.log.info(plan.reason)
        context.log_event(dg.AssetObservation(context.asset_key, metadata={NOT_TRAINED: plan.reason}))
        return
    if isinstance(plan, TrainingJob):
        run_in_child("embed_assets.training", plan, context=context, client=child, store=store)
    else:
        assert isinstance(plan, Reuse)
        context.log.info(f"not trained again: {plan.reason}")
    evaluation = plan_evaluation(settings, store, plan.candidate_id)
    run_in_child("embed_assets.evaluation", evaluation, context=context, client=child, store=store)
    judge(store, settings.gate, plan.candidate_id)
    yield dg.MaterializeResult(metadata=metadata.of_candidate(store, plan.candidate_id))


NOT_TRAINED = "not_trained"
"""Metadata of an observation of `finetuned_adapter`: why this night trained nothing."""


def _make_room(context: dg.AssetExecutionContext, settings: Settings, store: Store) -> None:
    removed = prune(store, settings.retention)
    if removed:
        context.log.info(removed.line)
    for doubt in removed.in_doubt:
        context.log.warning(doubt)


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"huggingface", "python"},
    deps=[finetuned_adapter],
    description="The immutable checkpoint that `models/checkpoint-latest` points to. Only the gate moves the pointer.",
)
def checkpoint_latest(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[None]:
    store = project.store
    try:
        checkpoint = promote(store, None, project.settings().gate)
    except PromotionRefusedError as refusal:
        raise dg.Failure(description=str(refusal), metadata=metadata.of_refusal(refusal), allow_retries=False) from None
    context.log.info(f"promoted {checkpoint.checkpoint_id}")
    return dg.MaterializeResult(metadata=metadata.of_checkpoint(store, checkpoint))


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"python"},
    deps=[checkpoint_latest],
    description="The running service's answer to the reload: which checkpoint it verified, warmed and now serves.",
)
def live_embedder_reload(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[None]:
    live = live_model(project.store)
    if live is None:
        raise dg.Failure(
            description="nothing is promoted yet: materialise checkpoint_latest first", allow_retries=False
        )
    service = find_service(project.store)
    if service is None:
        said = f"no service is running; the next `embed-assets serve` serves {live.checkpoint_id}"
        context.log.info(said)
        return dg.MaterializeResult(metadata={"service": said, "checkpoint": live.checkpoint_id})
    answer = service.reload(live.checkpoint_id)
    context.log.info(f"{service.url} serves {live.checkpoint_id}")
    return dg.MaterializeResult(metadata=metadata.of_reload(service.url, live.checkpoint_id, answer))


ASSETS = (code_snippets, contrastive_pairs, finetuned_adapter, checkpoint_latest, live_embedder_reload)
