"""The promotion gate as Dagster shows it. Checks only judge the report; `checkpoints.promote` judges it again."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from embed_assets.checkpoints.live import live_model
from embed_assets.checkpoints.verdict import latest_verdict
from embed_assets.defs import metadata
from embed_assets.defs.assets import code_snippets, contrastive_pairs, finetuned_adapter, live_embedder_reload
from embed_assets.defs.resources import Project
from embed_assets.evaluation.benchmark import read_benchmark
from embed_assets.files import read_json
from embed_assets.pairs.leakage import find_leaks, lineage_leaks, summary
from embed_assets.pairs.manifest import learnt_queries
from embed_assets.serving.client import find_service
from embed_assets.snippets.collect import read_manifest

GATE = {
    "recall_beats_live": "On held-out queries the candidate finds code better than the live model, beyond chance.",
    "guard_not_regressed": "On general queries, about the standard library, the candidate forgot nothing that matters.",
    "not_trained_on_the_test": "Neither candidate nor live model was ever trained on a query that it is judged by.",
}
PROBE = "where do we retry failed webhooks"


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
    description="No held-out query, its answer, or a near-duplicate of either, is among the rows that are learnt from; "
    "no held-out query ever was.",
)
def no_leakage(project: Project) -> dg.AssetCheckResult:
    store = project.store
    pairs, copies = pl.read_parquet(store.pairs), read_json(store.pairs_copies)
    leaks = [
        leak
        for link in (store.current_benchmark, store.guard_benchmark, *store.external_benchmarks)
        for leak in find_leaks(pairs, read_benchmark(link), copies)
    ]
    leaks += lineage_leaks(read_benchmark(store.current_benchmark), query_digests=learnt_queries(store), cutoff=0)
    counted = ", ".join(f"{count} {kind}" for kind, count in summary(leaks).items())
    return dg.AssetCheckResult(
        passed=not leaks,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{len(leaks)} leaks ({counted})" if leaks else "nothing stands on both sides",
        metadata=metadata.of_leaks(leaks),
    )


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(name, asset=finetuned_adapter, blocking=True, description=description)
        for name, description in GATE.items()
    ],
    can_subset=True,
    description="The gate decides once on the candidate's report; each of its checks shows its part.",
)
def promotion_gate(context: dg.AssetCheckExecutionContext, project: Project) -> Iterator[dg.AssetCheckResult]:
    verdict = latest_verdict(project.store, project.settings().gate)
    for key in sorted(context.selected_asset_check_keys):
        yield metadata.check_result(verdict.checks[key.name], verdict)


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


CHECKS = (
    repositories_readable,
    no_leakage,
    promotion_gate,
    promoted_checkpoint_answers,
)
