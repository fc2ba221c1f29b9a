"""The promotion gate as Dagster shows it. Checks only judge the report; `checkpoints.promote` judges it again."""

import dagster as dg
import polars as pl

from embed_assets.checkpoints.live import live_model
from embed_assets.checkpoints.verdict import judge
from embed_assets.defs import metadata
from embed_assets.defs.assets import code_snippets, contrastive_pairs, finetuned_adapter, live_embedder_reload
from embed_assets.defs.resources import Project
from embed_assets.evaluation.benchmark import read_benchmark
from embed_assets.pairs.leakage import find_leaks, summary
from embed_assets.serving.client import find_service
from embed_assets.snippets.collect import read_manifest

PROBE = "where do we retry failed webhooks"
EXAMPLES_SHOWN = 10


@dg.asset_check(asset=code_snippets, description="Every configured repository could be read.")
def repositories_readable(project: Project) -> dg.AssetCheckResult:
    failed = read_manifest(project.store).failed
    return dg.AssetCheckResult(
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{name}: {reason}" for name, reason in failed.items()) or "all were read",
    )


@dg.asset_check(
    asset=contrastive_pairs,
    blocking=True,
    description="No held-out query, its answer, or a near-duplicate of either, is among the rows that are learnt from.",
)
def no_leakage(project: Project) -> dg.AssetCheckResult:
    store = project.store
    pairs = pl.read_parquet(store.pairs)
    leaks = [
        leak
        for link in (store.current_benchmark, store.guard_benchmark)
        for leak in find_leaks(pairs, read_benchmark(link))
    ]
    counted = ", ".join(f"{count} {kind}" for kind, count in summary(leaks).items())
    return dg.AssetCheckResult(
        passed=not leaks,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(leaks)} leaks ({counted})" if leaks else "nothing stands on both sides",
        metadata={
            "leaks": len(leaks),
            "examples": metadata.markdown_table(("leak",), [(leak.line,) for leak in leaks[:EXAMPLES_SHOWN]]),
        },
    )


@dg.asset_check(
    asset=finetuned_adapter,
    blocking=True,
    description="On held-out queries the candidate finds code better than the live model, beyond chance.",
)
def recall_beats_live(project: Project) -> dg.AssetCheckResult:
    return _of_the_gate(project, "recall_beats_live")


@dg.asset_check(
    asset=finetuned_adapter,
    blocking=True,
    description="On general queries, about the standard library, the candidate has forgotten nothing that matters.",
)
def guard_not_regressed(project: Project) -> dg.AssetCheckResult:
    return _of_the_gate(project, "guard_not_regressed")


@dg.asset_check(
    asset=finetuned_adapter,
    blocking=True,
    description="Neither the candidate nor the live model was ever trained on a query that it is judged by.",
)
def not_trained_on_the_test(project: Project) -> dg.AssetCheckResult:
    return _of_the_gate(project, "not_trained_on_the_test")


@dg.asset_check(asset=live_embedder_reload, description="Over HTTP, the promoted checkpoint is what answers.")
def promoted_checkpoint_answers(project: Project) -> dg.AssetCheckResult:
    live = live_model(project.store)
    service = find_service(project.store)
    if live is None or service is None:
        return dg.AssetCheckResult(passed=True, description="no service is running, so there is nothing to ask")
    _, model = service.embed([PROBE], "query")
    return dg.AssetCheckResult(
        passed=model.endswith(f"@{live.checkpoint_id}"),
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{service.url} answers with {model}; promoted is {live.checkpoint_id}",
    )


def _of_the_gate(project: Project, name: str) -> dg.AssetCheckResult:
    verdict = judge(project.store, project.settings().gate)
    return metadata.check_result(verdict.checks[name], verdict)


CHECKS = (
    repositories_readable,
    no_leakage,
    recall_beats_live,
    guard_not_regressed,
    not_trained_on_the_test,
    promoted_checkpoint_answers,
)
