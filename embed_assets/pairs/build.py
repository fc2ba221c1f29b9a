"""From repositories to pairs and benchmarks: one night's work, in the order in which it is decided.

Histories first, because they decide the cut-off T; then the trees at T; then the queries of each source with their
sides; then what stands too near to what is judged is taken out; then everything is written, the manifest last.
"""

import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import polars as pl

from embed_assets.checkpoints.warm_start import configured_start
from embed_assets.evaluation.benchmark import write_benchmark
from embed_assets.files import StoreError, file_sha256, point_link, write_file, write_json, write_text
from embed_assets.pairs.changes import CHANGES_VERSION
from embed_assets.pairs.corpus import Corpus, corpus_of
from embed_assets.pairs.external import LEAST_QUERIES, read_external
from embed_assets.pairs.guard import build_guard
from embed_assets.pairs.manifest import (
    LEARNT_FILE,
    PairsError,
    PairsManifest,
    counts,
    digest_of_pairs,
    learnt_queries,
    nested_counts,
    notes_on,
    provable_gain,
    read_manifest,
)
from embed_assets.pairs.negatives import held_out_contents
from embed_assets.pairs.reading import Night, ReadRepository, open_all, trees_at, with_histories
from embed_assets.pairs.rehearsal import PACKAGES, build_rehearsal, installed_packages
from embed_assets.pairs.separation import Sketches, merge_repeated, separate, without_learnt
from embed_assets.pairs.sides import Sides, decide_files, decide_sides, read_sides, write_sides
from embed_assets.pairs.sources import (
    Past,
    Proposal,
    commit_proposals,
    docstring_proposals,
    issue_proposals,
)
from embed_assets.pairs.tables import benchmark_of, copies_of, minable, pair_rows, write_json_lines
from embed_assets.pairs.written import written_proposals
from embed_assets.records import REHEARSAL_SCHEMA, Benchmark, digest_of, digest_of_json, query_digest
from embed_assets.settings import RepositorySettings, Settings
from embed_assets.snippets.cache import cache_version
from embed_assets.snippets.repositories import Source
from embed_assets.store import Store

PAIRS_VERSION = "9"
"""Raise it whenever the same repositories would yield other pairs: the next night builds them anew."""
EXAMPLES = 12
SOURCES = ("docstring", "commit", "issue", "written")
"""Issues and written queries are used as soon as a file of them is given; a weight of 0 switches any source off."""


def build_pairs(settings: Settings, store: Store) -> PairsManifest:
    """Writes `store.pairs`, the JSON lines, what training reads beside them, and the benchmarks; the manifest last.

    A night on which nothing changed returns the manifest that is there.

    Raises:
        PairsError: no repository can be read, or what was read gives no training row.
        WarmStartError: what `training.start_from` names is nothing to start from.
        SidesError: the record of sides is damaged.
        RepositoryError: never for a single repository; those are named in the manifest's `failed`.
    """
    if unknown := sorted(settings.pairs.sources.keys() - set(SOURCES)):
        raise PairsError(f"pairs.sources: unknown source {unknown[0]!r}; allowed: {', '.join(SOURCES)}")
    if not settings.repositories:
        raise PairsError("no repository is configured; write a settings file with `embed-assets init` and name one")
    started = time.monotonic()
    night = Night(settings, store, now=int(time.time()), start=configured_start(settings))
    with ExitStack() as stack:
        sources = open_all(night, stack)
        inputs = _inputs_digest(night, sources)
        if (unchanged := _unchanged(night, inputs)) is not None:
            return unchanged
        repositories = with_histories(night, sources)
        sides = _sides(night, repositories)
        trees = trees_at(night, repositories, sides)
        corpus = corpus_of(list(trees.values()))
        sides = _files(night, sides, corpus)
        with night.step("queries"):
            readable = [repository for repository in repositories if repository.settings.name in trees]
            proposals = _proposals(night, readable, corpus, sides)
    return _write(night, sides, corpus, proposals, inputs, started)


def _sides(night: Night, repositories: list[ReadRepository]) -> Sides:
    previous = read_sides(night.store.splits)
    sides = decide_sides(
        previous,
        [query.commit.committed_at for repository in repositories for query in repository.queries],
        test_queries=night.settings.pairs.test_queries,
        with_history={repository.source.name: repository.history is not None for repository in repositories},
        decided_at=night.now,
        learnt_until=night.start.cutoff_for(each.source.name for each in repositories) if night.start else 0,
    )
    if sides != previous:
        write_sides(night.store.splits, sides)
    return sides


def _files(night: Night, sides: Sides, corpus: Corpus) -> Sides:
    """The sides, with one for every file of the corpus."""
    documented: dict[str, Counter[str]] = {}
    for function in corpus.documents():
        documented.setdefault(function.repository, Counter())[function.path] += bool(function.doc)
    decided = decide_files(sides, documented)
    if decided != sides:
        write_sides(night.store.splits, decided)
    return decided


def _proposals(night: Night, repositories: list[ReadRepository], corpus: Corpus, sides: Sides) -> list[Proposal]:
    weights, found = night.settings.pairs.sources, []
    if weights.get("docstring"):
        found += docstring_proposals(corpus, sides, night.dropped)
    for repository in repositories:
        if repository.history is not None:
            past = Past(repository=repository.source.name, history=repository.history, corpus=corpus, sides=sides)
            found += commit_proposals(past, repository.queries, night.dropped)
            found += issue_proposals(past, repository.issues, night.dropped)
    queries_file = night.settings.pairs.queries_file
    if queries_file is not None and weights.get("written", 1.0):
        found += written_proposals(queries_file, corpus, sides, night.dropped)
    return [replace(proposal, weight=weights.get(proposal.source, 1.0)) for proposal in found]


def _write(
    night: Night, sides: Sides, corpus: Corpus, proposals: list[Proposal], inputs: str, started: float
) -> PairsManifest:
    store, sketches = night.store, Sketches()
    if waiting := night.dropped["commit_waits"]:
        night.notes.append(f"{waiting} newer commit queries wait until a tenth of the held-out ones can be renewed")
    with night.step("separation"):
        learnt = learnt_queries(store) | (night.start.query_digests if night.start else set())
        merged = merge_repeated(without_learnt(proposals, learnt, night.dropped), night.dropped)
        kept = _newest(night, separate(merged, corpus, sketches, night.dropped))
    with night.step("negatives"):
        held_out, most = held_out_contents(kept, corpus, sketches), night.settings.pairs.hard_negatives
        pairs = pair_rows(kept, corpus, sketches, hard_negatives=most, held_out=held_out)
    if not pairs.filter(pl.col("split") == "train").height:
        raise PairsError(_why_none(night, corpus))
    with night.step("benchmark"):
        benchmark = benchmark_of([proposal for proposal in kept if proposal.split == "test"], corpus, sides.cutoff)
    with night.step("guard"):
        training = [proposal for proposal in kept if proposal.split != "test"]
        guard = _guard(night, training, sketches)
        external = [read_external(folder, training, sketches) for folder in _external_sets(night.settings)]
    with night.step("rehearsal"):
        rehearsal = _rehearsal(night, kept, [guard, *external], sketches)
    with night.step("write"):
        _remember(store, learnt, pairs)
        write_file(store.pairs, pairs.write_parquet)
        write_file(store.pairs_negatives, minable(corpus, held_out).write_parquet)
        write_file(store.pairs_rehearsal, rehearsal.write_parquet)
        write_json(store.pairs_copies, copies_of(corpus))
        write_json_lines(pairs, corpus, sketches, store.pairs_dir, held_out=held_out)
        point_link(store.current_benchmark, write_benchmark(benchmark, store.benchmarks))
        point_link(store.guard_benchmark, write_benchmark(guard, store.benchmarks))
        _link_external(store, external)
    manifest = _manifest(night, sides, corpus, pairs, benchmark, guard, inputs, time.monotonic() - started)
    write_json(store.pairs_manifest, manifest.to_json())
    return manifest


def _guard(night: Night, training: list[Proposal], sketches: Sketches) -> Benchmark:
    pairs = night.settings.pairs
    if pairs.guard_set is not None:
        least = max(LEAST_QUERIES, night.settings.gate.minimum_queries)
        return read_external(pairs.guard_set, training, sketches, name="guard", least=least)
    return build_guard(training, sketches, night.store.pairs_dir / "guard", queries=pairs.guard_queries)


def _rehearsal(night: Night, kept: list[Proposal], judges: list[Benchmark], sketches: Sketches) -> pl.DataFrame:
    """Empty where training asks for none: the weight is 0, or none is set and no history is learnt from.

    What is learnt from is left out by its source and by its name: a clone of a package is that package.
    """
    wanted = _wants_rehearsal(night)
    if wanted is None:
        wanted = any(proposal.source == "commit" and proposal.split == "train" for proposal in kept)
    if not wanted:
        return pl.DataFrame(schema=dict(REHEARSAL_SCHEMA))
    repositories = night.settings.repositories
    learnt = {name for each in repositories for name in (each.source.removeprefix("package:"), each.name)}
    found = build_rehearsal(kept, judges, sketches, night.store.pairs_dir / "rehearsal", left_out=learnt)
    if found.is_empty():
        night.notes.append(f"nothing is rehearsed: no other source is installed of {', '.join(PACKAGES)}")
    return found


def _wants_rehearsal(night: Night) -> bool | None:
    """What the settings say; None where the rows decide."""
    weight = night.settings.training.rehearsal_weight
    return None if weight is None else weight > 0


def _external_sets(settings: Settings) -> tuple[Path, ...]:
    """
    Raises:
        PairsError: two sets would be called the same.
    """
    folders = settings.pairs.external_sets
    names = [folder.name for folder in folders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PairsError(f"pairs.external_sets: two folders are called {twice[0]!r}; reports could not tell them apart")
    return folders


def _link_external(store: Store, external: list[Benchmark]) -> None:
    """Links to the sets that the settings name; those of earlier settings go."""
    for benchmark in external:
        point_link(store.external_benchmark(benchmark.name), write_benchmark(benchmark, store.benchmarks))
    named = {store.external_benchmark(benchmark.name) for benchmark in external}
    for link in set(store.external_benchmarks) - named:
        link.unlink()


def _newest(night: Night, proposals: list[Proposal]) -> list[Proposal]:
    """At most `pairs.max_pairs` training rows, the newest first; docs, which have no date, go first."""
    most = night.settings.pairs.max_pairs
    if most is None:
        return proposals
    train = sorted(
        (proposal for proposal in proposals if proposal.split == "train"),
        key=lambda proposal: (-proposal.written_at, digest_of(proposal.source, proposal.query)),
    )
    kept, rows = [], 0
    for proposal in train:
        if rows + len(proposal.answers) <= most:
            kept.append(proposal)
            rows += len(proposal.answers)
    night.dropped["above_max_pairs"] += sum(len(proposal.answers) for proposal in train) - rows
    return [*kept, *(proposal for proposal in proposals if proposal.split != "train")]


def _remember(store: Store, learnt: set[str], pairs: pl.DataFrame) -> None:
    """Written before the pairs are: after a crash it may hold too much, which costs a test query, never too little."""
    now = learnt | {query_digest(text) for text in pairs.filter(pl.col("split") == "train")["query"].to_list()}
    if now != learnt_queries(store):
        write_text(store.pairs_dir / LEARNT_FILE, "\n".join(sorted(now)) + "\n")


def _inputs_digest(night: Night, sources: list[tuple[RepositorySettings, Source]]) -> str:
    pairs = night.settings.pairs
    sets = [*pairs.external_sets, *([pairs.guard_set] if pairs.guard_set else [])]
    files = [pairs.queries_file, *(repository.issues for repository, _ in sources)]
    files += [file for folder in sets for file in sorted(folder.rglob("*.*")) if file.is_file()]
    return digest_of_json(
        {
            "versions": [PAIRS_VERSION, CHANGES_VERSION, cache_version(), sys.version, installed_packages()],
            "pairs": pairs.model_dump(mode="json"),
            "repositories": [[repository.model_dump(mode="json"), source.head] for repository, source in sources],
            "files": [file_sha256(path) for path in files if path is not None and path.exists()],
            "failed": sorted(night.failed),
            **({"start": night.start.digest} if night.start else {}),
            **({"rehearsal": wanted} if (wanted := _wants_rehearsal(night)) is not None else {}),
        }
    )


def _unchanged(night: Night, inputs: str) -> PairsManifest | None:
    """The manifest that is there, if it was made from the same inputs and all it speaks of is there too.

    A repository that broke off while it was read is tried again: what was missing may be there now.
    """
    store = night.store
    paths = [store.pairs_manifest, store.pairs, store.pairs_copies, store.pairs_negatives, store.pairs_rehearsal]
    paths += [store.splits, store.current_benchmark, store.guard_benchmark]
    paths += [store.external_benchmark(folder.name) for folder in night.settings.pairs.external_sets]
    if not all(path.exists() for path in paths):
        return None
    try:
        manifest = read_manifest(store)
    except StoreError:
        return None
    named = (store.current_benchmark.resolve().name, store.guard_benchmark.resolve().name)
    same = (
        manifest.inputs_digest == inputs
        and manifest.failed.keys() == night.failed.keys()
        and named == (manifest.benchmark_digest, manifest.guard_digest)
    )
    sides = read_sides(store.splits)
    if not same or sides is None or sides.cutoff != manifest.cutoff:
        return None
    if not _holds(store, manifest):
        night.notes.append("a file of last night's pairs was damaged or altered: all were built again")
        return None
    return manifest


def _holds(store: Store, manifest: PairsManifest) -> bool:
    """Whether the files on disk are those that the manifest speaks of."""
    try:
        same = digest_of_pairs(pl.read_parquet(store.pairs)) == manifest.pairs_digest
        return same and _digests_beside(store) == manifest.beside
    except (pl.exceptions.PolarsError, OSError):
        return False


def _digests_beside(store: Store) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in (store.pairs_negatives, store.pairs_rehearsal, store.pairs_copies)}


def _why_none(night: Night, corpus: Corpus) -> str:
    reasons = (
        ", ".join(f"{reason} {count}" for reason, count in night.dropped.most_common(5) if count) or "nothing found"
    )
    documented = sum(1 for function in corpus.functions.values() if function.doc)
    return (
        f"no training pair in {len(corpus.functions)} functions, {documented} of them documented (dropped: {reasons}); "
        f"add a repository with docs or a history, or give queries in `pairs.queries_file`"
    )


def _manifest(
    night: Night,
    sides: Sides,
    corpus: Corpus,
    pairs: pl.DataFrame,
    benchmark: Benchmark,
    guard: Benchmark,
    inputs: str,
    seconds: float,
) -> PairsManifest:
    learnt = pairs.filter(pl.col("split") != "test")
    return PairsManifest(
        cutoff=sides.cutoff,
        rows=pairs.height,
        by_split=counts(pairs, "split"),
        by_source=counts(learnt, "source"),
        by_language=counts(learnt, "language"),
        by_repository=counts(learnt, "repository"),
        by_source_and_language=nested_counts(learnt, "source", "language"),
        by_source_and_split=nested_counts(pairs, "source", "split"),
        test_queries=counts(benchmark.queries, "source"),
        corpus=benchmark.corpus.height,
        duplicates=len(corpus.functions) - len(corpus.representatives),
        guard_queries=guard.queries.height,
        guard_corpus=guard.corpus.height,
        dropped={reason: count for reason, count in sorted(night.dropped.items()) if count},
        failed=night.failed,
        notes=(*dict.fromkeys(night.notes), *notes_on(benchmark)),
        examples=_examples(learnt),
        pairs_digest=digest_of_pairs(pairs),
        benchmark_digest=benchmark.digest,
        guard_digest=guard.digest,
        inputs_digest=inputs,
        provable_gain=provable_gain(max(counts(benchmark.queries, "source").values(), default=0)),
        seconds=round(seconds, 3),
        seconds_by_step=night.seconds,
        beside=_digests_beside(night.store),
    )


def _examples(learnt: pl.DataFrame) -> tuple[dict[str, str], ...]:
    """Rows of every source and repository in turn, the same as long as the pairs are the same."""
    shuffled = learnt.sort("pair_id").with_columns(turn=pl.col("pair_id").cum_count().over("source", "repository"))
    chosen = shuffled.sort("turn", "source", "repository").head(EXAMPLES)
    return tuple(chosen.select("source", "repository", "query", "positive").to_dicts())
