"""Measures a candidate: base, live and candidate model, BM25 and what fuses them, on the same frozen queries.

The candidate is loaded from the folder that would be served. What comes out is a RecallReport, bound by digests to
everything that went in; it is judged elsewhere and never measured twice.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from embed_assets.encoder.digest import model_digest
from embed_assets.evaluation.benchmark import read_benchmark
from embed_assets.evaluation.errors import EvaluationError
from embed_assets.evaluation.golden import write_golden
from embed_assets.evaluation.job import EvaluationJob
from embed_assets.evaluation.lineage import find_leaks
from embed_assets.evaluation.tasks import GUARD, Task, external_name, external_tasks, guard_tasks, tasks_of
from embed_assets.evaluation.vectors import Floats, TextEncoder, embed, in_turn, prune
from embed_assets.files import read_json, write_json
from embed_assets.records import BASE, Benchmark, RecallReport, SliceReport
from embed_assets.retrieval.bm25 import BM25
from embed_assets.retrieval.exact import block_size, ranks_in
from embed_assets.retrieval.fusion import reciprocal_rank_fusion, zscore_fusion
from embed_assets.retrieval.lexical import lexical_index

Observe = Callable[[str, int, int], None]
"""What is going on, texts finished, texts in all."""
Load = Callable[[Path, EvaluationJob], TextEncoder]
FUSION_COPIES = 10
"""Blocks of scores and what fusion makes of them, in float64, exist at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """One model's vectors of everything that is ranked."""

    space_id: str
    corpora: Mapping[str, Floats]
    """Corpus name -> (documents, dim)."""
    queries: Mapping[str, Floats]
    """Task name -> (queries, dim)."""


def load_for_evaluation(path: Path, job: EvaluationJob) -> TextEncoder:
    """The model at `path` as it would be served; the base model with the candidate's longest input."""
    from embed_assets.encoder.load import load_encoder

    limit = job.max_tokens if path == Path(job.base_path) else None
    return load_encoder(path, device=job.device, max_tokens=limit, threads=job.threads)


def evaluate_candidate(
    job: EvaluationJob, observe: Observe = lambda what, done, total: None, *, load: Load = load_for_evaluation
) -> RecallReport:
    """Evaluates the job's candidate; writes golden.safetensors and then report.json into its folder.

    Raises:
        EvaluationError: the live model changed since the plan was made, or there is nothing to ask.
        BenchmarkError: benchmark or guard were altered.
        ModelError: a model cannot be loaded.
    """
    started = time.monotonic()
    candidate = Path(job.candidate)
    digest = model_digest(candidate / "model")
    _require_live(job)
    benchmark = read_benchmark(Path(job.benchmark))
    guard = read_benchmark(Path(job.guard)) if job.guard else None
    external = [read_benchmark(Path(path)) for path in job.external]
    tasks = [*tasks_of(benchmark), *(guard_tasks(guard) if guard else [])]
    if not tasks:
        raise EvaluationError(f"benchmark {benchmark.digest} holds no queries; add repositories and build pairs again")
    corpora = {"benchmark": benchmark, **({GUARD: guard} if guard else {})}
    corpora |= {external_name(each): each for each in external}
    tasks += [task for each in external for task in external_tasks(each)]
    paths = {BASE: Path(job.base_path), "live": Path(job.live_path), "candidate": candidate / "model"}
    with in_turn(Path(job.vectors)):
        embedded = _embed_all(job, paths, tasks, corpora, observe, load)
    slices = tuple(_rank_all(tasks, corpora, embedded, observe))
    training = read_json(candidate / "training.json")
    report = RecallReport(
        candidate_id=job.candidate_id,
        candidate_digest=digest,
        live_id=job.live_id,
        live_digest=job.live_digest,
        base_model=job.base_name,
        benchmark_digest=benchmark.digest,
        guard_digest=guard.digest if guard else "",
        pairs_digest=training["pairs_digest"],
        cutoff=benchmark.cutoff,
        attempt=job.attempt,
        slices=slices,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
        notes=(
            *(() if guard else ("no guard benchmark was built",)),
            *(f"external set {each.name}: benchmark {each.digest}" for each in external),
        ),
        leaks=find_leaks(benchmark, candidate, None if job.live_id == BASE else Path(job.live_path)),
    )
    write_json(candidate / "report.json", report.to_json())
    return report


def _require_live(job: EvaluationJob) -> None:
    found = model_digest(Path(job.live_path))
    if found != job.live_digest:
        raise EvaluationError(
            f"the live model at {job.live_path} has digest {found}, planned was {job.live_digest}; evaluate again"
        )


def _embed_all(
    job: EvaluationJob,
    paths: Mapping[str, Path],
    tasks: list[Task],
    corpora: Mapping[str, Benchmark],
    observe: Observe,
    load: Load,
) -> dict[str, Embedded]:
    """Model name -> its vectors. One model is in memory at a time, and the same folder is embedded once."""
    done: dict[Path, Embedded] = {}
    root = Path(job.vectors)
    for name, path in paths.items():
        if path not in done:
            encoder = load(path, job)
            done[path] = _embed_one(encoder, name, tasks, corpora, root, observe)
            if name == "candidate":
                first = corpora["benchmark"]
                write_golden(Path(job.candidate) / "golden.safetensors", encoder, first.queries, first.corpus)
            del encoder
    prune(root, {each.space_id for each in done.values()})
    return {name: done[path] for name, path in paths.items()}


def _embed_one(
    encoder: TextEncoder,
    name: str,
    tasks: list[Task],
    corpora: Mapping[str, Benchmark],
    root: Path,
    observe: Observe,
) -> Embedded:
    total = sum(each.corpus.height for each in corpora.values()) + sum(len(task.texts) for task in tasks)
    finished = 0

    def progress(texts: int) -> None:
        nonlocal finished
        finished += texts
        observe(f"embedding with {name}", finished, total)

    passages = {
        corpus: embed(
            encoder, each.corpus["text"].to_list(), kind="passage", name=f"{corpus}-passages", root=root,
            parts=each.corpus["parts"].to_list(), progress=progress,
        )
        for corpus, each in corpora.items()
    }  # fmt: skip
    # All queries in one call: one that names nothing is the same text masked and plain, and is embedded once.
    asked = [text for task in tasks for text in task.texts]
    vectors = embed(encoder, asked, kind="query", name="queries", root=root, progress=progress)
    ends = np.cumsum([len(task.texts) for task in tasks])
    queries = {task.name: vectors[end - len(task.texts) : end] for task, end in zip(tasks, ends, strict=True)}
    return Embedded(space_id=encoder.space_id, corpora=passages, queries=queries)


@dataclass(frozen=True, kw_only=True)
class Words:
    """Both lexical indexes of one corpus."""

    bm25: BM25
    """The baseline, which is one half of the `hybrid` systems."""
    lexical: BM25
    """The better half: that of the `fused` systems."""


def words_of(texts: Sequence[str]) -> Words:
    return Words(bm25=BM25(texts), lexical=lexical_index(texts))


def _rank_all(
    tasks: list[Task], corpora: Mapping[str, Benchmark], embedded: Mapping[str, Embedded], observe: Observe
) -> Iterator[SliceReport]:
    words = {name: words_of(each.corpus["text"].to_list()) for name, each in corpora.items()}
    for number, task in enumerate(tasks):
        observe("ranking", number, len(tasks))
        yield task.report(rank_task(task, words[task.corpus], embedded))
    observe("ranking", len(tasks), len(tasks))


def rank_task(task: Task, words: Words, embedded: Mapping[str, Embedded]) -> dict[str, list[tuple[int, ...]]]:
    """System -> ranks of each query's relevant documents, for every dense model, both lexical indexes, and their
    fusions."""
    ranks: dict[str, list[tuple[int, ...]]] = {"bm25": [], "lexical": []}
    distinct = {id(each): name for name, each in reversed(list(embedded.items()))}
    block = max(1, block_size(task.corpus_size) // FUSION_COPIES)
    for start, plain in words.bm25.score_blocks(task.texts, block=block):
        here = slice(start, start + len(plain))
        relevant, stems = task.relevant[here], words.lexical.scores(task.texts[here])
        ranks["bm25"] += ranks_in(plain, relevant)
        ranks["lexical"] += ranks_in(stems, relevant)
        for name in distinct.values():
            meaning = embedded[name].queries[task.name][here] @ embedded[name].corpora[task.corpus].T
            for system, found in (
                (name, ranks_in(meaning, relevant)),
                (f"hybrid_{name}", ranks_in(zscore_fusion(meaning, plain), relevant)),
                (f"fused_{name}", ranks_in(zscore_fusion(meaning, stems), relevant)),
                (f"rrf_{name}", ranks_in(reciprocal_rank_fusion(meaning, plain), relevant, tie=0.0)),
            ):
                ranks.setdefault(system, []).extend(found)
    for name, each in embedded.items():  # a live model that is the base shares its ranks
        for prefix in ("", "hybrid_", "fused_", "rrf_"):
            ranks[prefix + name] = ranks[prefix + distinct[id(each)]]
    return ranks
