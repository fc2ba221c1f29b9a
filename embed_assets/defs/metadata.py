"""What assets and checks show in the UI. Numeric names stay the same from night to night, so that they plot."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from embed_assets.checkpoints.live import Checkpoint
from embed_assets.checkpoints.promote import PromotionRefusedError
from embed_assets.checkpoints.verdict import read_report
from embed_assets.doctor import Finding
from embed_assets.evaluation.benchmark import read_benchmark
from embed_assets.evaluation.verdict import Check, Verdict
from embed_assets.files import read_json
from embed_assets.pairs.leakage import Leak, summary
from embed_assets.pairs.manifest import PairsManifest
from embed_assets.snippets.collect import SnippetsManifest
from embed_assets.store import Store

Metadata = dict[str, Any]
EXAMPLES_SHOWN = 8
REFUSED = "refused"
"""Key in the metadata of a failed step: the gate, at the door, refused the promotion."""
EXAMPLE_CHARACTERS = 300
LEAKS_SHOWN = 10
ALWAYS_COUNTED = ("generated", "minified", "oversized", "parser_crashed", "secret", "too_slow", "vendored")
"""Reasons that are plotted on nights without a case, too: a line that ends would look like one that stayed."""


def picture(png: bytes, alternative: str) -> dg.MarkdownMetadataValue:
    """A plot, inside the metadata itself."""
    return dg.MetadataValue.md(f"![{alternative}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})")


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MarkdownMetadataValue:
    lines = [columns, ["---"] * len(columns), *rows]
    return dg.MetadataValue.md("\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines))


def counts(values: Mapping[str, int], name: str) -> dg.MarkdownMetadataValue:
    """A table of counts, the largest first."""
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return markdown_table((name, "count"), [(key, f"{value:,}") for key, value in ordered])


def of_doctor(findings: Sequence[Finding]) -> Metadata:
    return {"findings": markdown_table(("what", "level", "found"), [(f.name, f.level, f.message) for f in findings])}


def line_of_snippets(manifest: SnippetsManifest) -> str:
    languages = ", ".join(manifest.by_language)
    failed = f"; could not read {', '.join(manifest.failed)}" if manifest.failed else ""
    return f"{manifest.snippets:,} snippets, {manifest.documented:,} documented ({languages}){failed}"


def of_snippets(manifest: SnippetsManifest, store: Store) -> Metadata:
    """Counts by language, repository and reason of dropping, as tables and as numbers that plot from night to night."""
    return {
        "dagster/row_count": manifest.snippets,
        "documented": manifest.documented,
        "duplicates": manifest.duplicates,
        "grammars": len(manifest.grammars),
        "failed_repositories": len(manifest.failed),
        **{f"rows/{language}": count for language, count in manifest.by_language.items()},
        **{f"dropped/{reason}": manifest.dropped.get(reason, 0) for reason in {*ALWAYS_COUNTED, *manifest.dropped}},
        "parsed_files": sum(found.parsed_files for found in manifest.repositories.values()),
        "seconds": manifest.seconds,
        "megabytes_per_second": manifest.megabytes_per_second,
        "peak_memory_megabytes": manifest.peak_memory_megabytes,
        "by_language": markdown_table(
            ("language", "rows", "documented", "grammar"),
            [
                (name, count, manifest.documented_by_language.get(name, 0), manifest.grammars.get(name, ""))
                for name, count in manifest.by_language.items()
            ],
        ),
        "dropped": counts(manifest.dropped, "reason"),
        "repositories": markdown_table(
            ("repository", "commit", "files", "parsed anew", "snippets", "documented", "left out"),
            [
                (
                    name, found.commit[:12], found.files, found.parsed_files, found.snippets, found.documented,
                    sum(found.dropped.values()),
                )
                for name, found in manifest.repositories.items()
            ],
        ),
        "failed": markdown_table(("repository", "why"), manifest.failed.items()),
        "notices": markdown_table(("notice",), [(notice,) for notice in manifest.notices]),
        "table": dg.MetadataValue.path(str(store.snippets)),
    }  # fmt: skip


def of_checkpoint(store: Store, checkpoint: Checkpoint) -> Metadata:
    """What was promoted, in whose place, and how to load it."""
    return {
        "checkpoint": checkpoint.checkpoint_id,
        "replaced": checkpoint.replaced,
        "digest": checkpoint.digest,
        "folder": dg.MetadataValue.path(str(checkpoint.path)),
        "load": dg.MetadataValue.md(f'`SentenceTransformer("{store.checkpoint_latest}")`'),
    }


def of_refusal(refusal: PromotionRefusedError) -> Metadata:
    return {REFUSED: markdown_table(("reason",), [(reason,) for reason in refusal.reasons])}


def line_of_pairs(manifest: PairsManifest) -> str:
    rows = ", ".join(f"{count:,} {split}" for split, count in manifest.by_split.items())
    asked = ", ".join(f"{count:,} {source}" for source, count in manifest.test_queries.items())
    return f"{manifest.rows:,} rows ({rows}); held-out queries: {asked} on {manifest.corpus:,} functions"


SPLITS = ("train", "validation", "test")
QUERY_SOURCES = ("commit", "docstring")
"""Sources whose number of held-out queries is plotted on every night, zero included."""


def of_pairs(manifest: PairsManifest, store: Store) -> Metadata:
    """Rows by side, source, language and repository, what was dropped and why, and examples to read."""
    asked = dict.fromkeys(QUERY_SOURCES, 0) | dict(manifest.test_queries)
    languages = sorted(manifest.by_language, key=lambda language: -manifest.by_language[language])
    return {
        "dagster/row_count": manifest.rows,
        **{f"rows/{split}": manifest.by_split.get(split, 0) for split in SPLITS},
        **{f"test_queries/{source}": count for source, count in asked.items()},
        "corpus": manifest.corpus,
        "duplicates": manifest.duplicates,
        "dropped_rows": sum(manifest.dropped.values()),
        "guard_queries": manifest.guard_queries,
        "provable_gain_mrr": manifest.provable_gain,
        "seconds": manifest.seconds,
        "cutoff": dg.MetadataValue.timestamp(float(manifest.cutoff)) if manifest.cutoff else "none: sides go by file",
        "by_source": markdown_table(
            ("source", *SPLITS),
            [
                (source, *(f"{of_split.get(split, 0):,}" for split in SPLITS))
                for source, of_split in manifest.by_source_and_split.items()
            ],
        ),
        "by_language": markdown_table(
            ("source", *languages),
            [
                (source, *(f"{of_language.get(language, 0):,}" for language in languages))
                for source, of_language in manifest.by_source_and_language.items()
            ],
        ),
        "by_repository": counts(manifest.by_repository, "repository"),
        "dropped": counts(manifest.dropped, "reason"),
        "notes": markdown_table(("note",), [(note,) for note in manifest.notes]),
        "examples": markdown_table(
            ("source", "repository", "query", "answered by", "code"),
            [
                (row["source"], row["repository"], row["query"], *_header_and_code(row["positive"]))
                for row in manifest.examples
            ],
        ),
        "table": dg.MetadataValue.path(str(store.pairs)),
    }


def of_leaks(leaks: Sequence[Leak]) -> Metadata:
    """How many of each kind, and examples to look at."""
    return {
        "leaks": len(leaks),
        "by_kind": counts(summary(leaks), "kind"),
        "examples": markdown_table(
            ("kind", "similarity", "benchmark", "is learnt", "is held out"),
            [
                (leak.kind, f"{leak.similarity:.2f}", leak.benchmark, leak.learnt, leak.held_out)
                for leak in leaks[:LEAKS_SHOWN]
            ],
        ),
    }


def of_candidate(store: Store, candidate_id: str) -> Metadata:
    """Training figures, the loss curve, recall before and after, and the queries that moved most."""
    from embed_assets.evaluation.plot import recall_plot
    from embed_assets.evaluation.table import improved_examples, recall_table, worst_losses
    from embed_assets.training.curve import curve_figures, read_curve
    from embed_assets.training.plot import loss_curve_png, series_png

    directory = store.candidate(candidate_id)
    training = read_json(directory / "training.json")
    report = read_report(store, candidate_id)
    verdict = read_json(directory / "verdict.json")
    curve = read_curve(directory / "curve.jsonl")
    benchmark = read_benchmark(store.benchmarks / report.benchmark_digest)
    examples = [*improved_examples(report, benchmark, EXAMPLES_SHOWN), *worst_losses(report, benchmark, EXAMPLES_SHOWN)]
    return {
        "candidate": candidate_id,
        "recall": dg.MetadataValue.md(recall_table(report)),
        "recall_plot": picture(recall_plot(report), "recall before and after"),
        **{f"training/{name}": value for name, value in curve_figures(curve).items()},
        "path": training["path"],
        "memory_plan": training["memory_plan"],
        "loss_curve": picture(loss_curve_png(curve), "loss over the steps"),
        "training_series": picture(series_png(curve), "speed, memory and gradients over the steps"),
        "examples": markdown_table(
            ("query", "answer", "rank before", "rank after"),
            [(example.query, example.answer, example.rank_before, example.rank_after) for example in examples],
        ),
        "base_model": training["base_model"],
        "started_from": (training.get("started_from") or {}).get("candidate_id", "the base model"),
        "rows": training["rows"],
        "lexical_teacher": training.get("lexical_teacher", False),
        "rehearsed": training.get("rehearsed", 0),
        "steps": training["steps"],
        "final_loss": training["final_loss"],
        "training_seconds": training["seconds"],
        "samples_per_second": training["samples_per_second"],
        "evaluation_seconds": report.seconds,
        **verdict["figures"],
        "recipe": dg.MetadataValue.json(training["recipe"]),
        "folder": dg.MetadataValue.path(str(directory)),
    }


def of_reload(url: str, checkpoint_id: str, answer: Mapping[str, Any]) -> Metadata:
    return {
        "service": dg.MetadataValue.url(url),
        "checkpoint": checkpoint_id,
        "answer": dg.MetadataValue.json(dict(answer)),
    }


def check_result(check: Check, verdict: Verdict) -> dg.AssetCheckResult:
    """A check of the gate, with the verdict's figures."""
    return dg.AssetCheckResult(
        asset_key="finetuned_adapter",
        check_name=check.name,
        passed=check.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=check.description,
        metadata={
            "candidate": verdict.candidate_id,
            "deciding_slice": verdict.deciding_slice or "none",
            "rules": markdown_table(
                ("rule", "holds", "why"),
                [(rule.name, "yes" if rule.passed else "no", rule.sentence) for rule in check.rules],
            ),
            **verdict.figures,
        },
    )


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _header_and_code(embedded: str) -> tuple[str, str]:
    header, _, code = embedded.partition("\n")
    return header, code[:EXAMPLE_CHARACTERS]
