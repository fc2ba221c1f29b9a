"""An evaluation from a data directory to a report, with fake encoders, and once with the real MiniLM."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embed_assets.encoder.digest import model_digest
from embed_assets.evaluation.benchmark import BenchmarkError, read_benchmark, write_benchmark
from embed_assets.evaluation.errors import EvaluationError
from embed_assets.evaluation.evaluate import evaluate_candidate
from embed_assets.evaluation.gate import decide
from embed_assets.evaluation.job import EvaluationJob, plan_evaluation, read_job
from embed_assets.evaluation.vectors import Floats
from embed_assets.files import StoreError, point_link, read_json, write_json
from embed_assets.records import RecallReport
from embed_assets.retrieval.bm25 import BM25
from embed_assets.retrieval.exact import ranks_in
from embed_assets.retrieval.fusion import zscore_fusion
from embed_assets.retrieval.lexical import lexical_index
from embed_assets.settings import GateSettings, Settings
from embed_assets.store import Store
from tests.evaluation.made_store import (
    FIRST,
    SECOND,
    FakeEncoder,
    make_benchmark,
    set_benchmarks,
    write_candidate,
    write_model,
)


@pytest.fixture
def job(store: Store, tmp_path: Path) -> EvaluationJob:
    """A candidate against the base model, nothing promoted."""
    set_benchmarks(store, make_benchmark("team", 120), make_benchmark("library", 60))
    folder = write_candidate(store, FIRST, weights="candidate")
    base = write_model(tmp_path / "base", "base")
    return EvaluationJob(
        candidate_id=FIRST,
        candidate=str(folder),
        base_name="minilm",
        base_path=str(base),
        max_tokens=256,
        live_id="base",
        live_path=str(base),
        live_digest=model_digest(base),
        benchmark=str(store.current_benchmark),
        guard=str(store.guard_benchmark),
        external=[],
        vectors=str(store.vectors),
        attempt=1,
        device="cpu",
        threads=1,
    )


def fake(path: Path, job: EvaluationJob) -> FakeEncoder:
    """A good candidate, a poor base."""
    return FakeEncoder(noise=0.1 if path.name == "model" else 0.45)


def test_an_external_set_is_reported_and_decides_nothing(job: EvaluationJob, store: Store) -> None:
    alone = evaluate_candidate(job, load=fake)
    folder = write_benchmark(make_benchmark("elsewhere", 40), store.benchmarks)
    beside = evaluate_candidate(dataclasses.replace(job, external=[str(folder)]), load=fake)
    assert [part.name for part in beside.slices] == [
        *(part.name for part in alone.slices),
        "external_elsewhere",
        "external_elsewhere_masked",
    ]
    found = beside.slice("external_elsewhere")
    assert found is not None and found.corpus_size == 40
    assert beside.notes == (f"external set elsewhere: benchmark {folder.name}",)
    judged = [decide(report, GateSettings()) for report in (alone, beside)]
    assert judged[0].figures == judged[1].figures and judged[0].reasons == judged[1].reasons


def test_the_report_holds_every_system_on_every_slice(job: EvaluationJob) -> None:
    report = evaluate_candidate(job, load=fake)
    assert [part.name for part in report.slices] == ["docstring", "docstring_masked", "guard", "guard_masked"]
    kinds, names = ("", "hybrid_", "fused_", "rrf_"), ("base", "live", "candidate")
    systems = {"bm25", "lexical", *(f"{kind}{name}" for kind in kinds for name in names)}
    assert all(set(part.ranks) == systems for part in report.slices)
    assert report.live_id == "base"
    assert RecallReport.from_json(read_json(Path(job.candidate) / "report.json")) == report
    assert decide(report, GateSettings()).figures["gain"] > 0


def test_ranks_are_those_of_the_whole_score_matrix(job: EvaluationJob, store: Store) -> None:
    report = evaluate_candidate(job, load=fake)
    benchmark = make_benchmark("team", 120)
    encoder = FakeEncoder(noise=0.1)
    queries = encoder.encode(benchmark.queries["text"].to_list(), kind="query")
    corpus = encoder.encode(benchmark.corpus["text"].to_list(), kind="passage")
    scores = queries @ corpus.T
    expected = tuple((int((row >= row[number]).sum()),) for number, row in enumerate(scores))
    part = report.slice("docstring")
    assert part is not None
    assert part.ranks["candidate"] == expected
    assert part.ranks["live"] == part.ranks["base"] != expected


def test_the_fused_system_adds_the_lexical_half_to_the_dense_one(job: EvaluationJob) -> None:
    report = evaluate_candidate(job, load=fake)
    benchmark, encoder = make_benchmark("team", 120), FakeEncoder(noise=0.1)
    texts, documents = benchmark.queries["text"].to_list(), benchmark.corpus["text"].to_list()
    dense = encoder.encode(texts, kind="query") @ encoder.encode(documents, kind="passage").T
    part = report.slice("docstring")
    assert part is not None
    relevant = [[row] for row in range(len(texts))]
    for system, index in (("hybrid_candidate", BM25(documents)), ("fused_candidate", lexical_index(documents))):
        assert part.ranks[system] == tuple(ranks_in(zscore_fusion(dense, index.scores(texts)), relevant))
    assert part.ranks["lexical"] == tuple(ranks_in(lexical_index(documents).scores(texts), relevant))


def test_one_model_is_embedded_once_and_an_unchanged_night_embeds_nothing(job: EvaluationJob) -> None:
    loaded: list[tuple[Path, FakeEncoder]] = []

    def load(path: Path, job: EvaluationJob) -> FakeEncoder:
        loaded.append((path, fake(path, job)))
        return loaded[-1][1]

    evaluate_candidate(job, load=load)
    assert [path.name for path, _ in loaded] == ["base", "model"]
    loaded.clear()
    evaluate_candidate(job, load=load)
    assert [len(encoder.encoded) for _, encoder in loaded] == [0, 32]  # golden texts are always embedded


def test_golden_vectors_are_the_candidates_own(job: EvaluationJob) -> None:
    from safetensors import safe_open

    evaluate_candidate(job, load=fake)
    with safe_open(Path(job.candidate) / "golden.safetensors", framework="numpy") as file:
        vectors, metadata = file.get_tensor("vectors"), file.metadata()
    texts, kinds = json.loads(metadata["texts"]), json.loads(metadata["kinds"])
    assert len(texts) == len(kinds) == len(vectors) == 32
    for text, kind, vector in zip(texts, kinds, vectors, strict=True):
        np.testing.assert_array_equal(FakeEncoder(noise=0.1).encode([text], kind=kind)[0], vector)


def test_without_a_guard_the_report_says_so_and_the_gate_refuses(job: EvaluationJob) -> None:
    report = evaluate_candidate(dataclasses.replace(job, guard=""), load=fake)
    assert report.guard_digest == ""
    assert not decide(report, GateSettings()).checks["guard_not_regressed"].passed


def test_what_the_candidate_was_trained_on_is_no_question(job: EvaluationJob, store: Store) -> None:
    asked = make_benchmark("team", 120).queries["text"][3]
    folder = write_candidate(store, SECOND, weights="other", learnt=[asked.upper() + "  "])
    report = evaluate_candidate(dataclasses.replace(job, candidate_id=SECOND, candidate=str(folder)), load=fake)
    assert report.leaks == (f"the candidate was trained on 1 of the queries asked here, such as {asked!r}",)
    assert not decide(report, GateSettings()).promote


def test_history_later_than_the_cutoff_is_a_leak(job: EvaluationJob, store: Store) -> None:
    set_benchmarks(store, make_benchmark("team", 90, cutoff=1000))
    training = Path(job.candidate) / "training.json"
    write_json(training, {**read_json(training), "cutoff": 1001})
    benchmark = str(store.current_benchmark.resolve())
    assert "later than" in evaluate_candidate(dataclasses.replace(job, benchmark=benchmark), load=fake).leaks[0]


def test_a_live_model_that_changed_is_an_error(job: EvaluationJob) -> None:
    (Path(job.live_path) / "model.safetensors").write_text("swapped", encoding="utf-8")
    with pytest.raises(EvaluationError, match="evaluate again"):
        evaluate_candidate(job, load=fake)
    assert not (Path(job.candidate) / "report.json").exists()


def test_an_altered_benchmark_is_an_error(job: EvaluationJob) -> None:
    file = Path(job.benchmark) / "queries.parquet"
    pl.read_parquet(file).with_columns(text=pl.lit("easy")).write_parquet(file)
    with pytest.raises(BenchmarkError):
        evaluate_candidate(job, load=fake)


class Broken(FakeEncoder):
    def _vector(self, kind: str, text: str) -> Floats:
        return super()._vector(kind, text) * np.float32(np.nan)


def test_a_model_whose_vectors_are_no_numbers_gets_no_report(job: EvaluationJob) -> None:
    with pytest.raises(EvaluationError, match="is broken: 120 of 120 texts"):
        evaluate_candidate(job, load=lambda path, job: Broken())
    assert not (Path(job.candidate) / "report.json").exists()


def test_a_query_that_several_slices_ask_is_embedded_once(job: EvaluationJob) -> None:
    encoders: list[FakeEncoder] = []

    def load(path: Path, job: EvaluationJob) -> FakeEncoder:
        encoders.append(fake(path, job))
        return encoders[-1]

    evaluate_candidate(job, load=load)
    benchmark = read_benchmark(Path(job.benchmark))
    asked = {*benchmark.queries["text"], *benchmark.queries["masked_text"]}
    assert all(encoder.encoded.count(text) == 1 for encoder in encoders[:1] for text in asked)


def test_a_job_survives_its_file(job: EvaluationJob, tmp_path: Path) -> None:
    write_json(tmp_path / "job.json", job.to_json())
    assert read_job(tmp_path / "job.json") == job
    write_json(tmp_path / "job.json", {"unknown": 1})
    with pytest.raises(EvaluationError, match="is no evaluation job"):
        read_job(tmp_path / "job.json")


def judged(store: Store, name: str, *, promote: bool, live_digest: str) -> None:
    write_candidate(store, name, weights=name)
    write_json(store.candidate(name) / "report.json", {"live_digest": live_digest})
    write_json(store.candidate(name) / "verdict.json", {"promote": promote})


def test_the_plan_counts_refused_attempts_against_the_same_live_model(store: Store) -> None:
    from embed_assets.encoder.resolve import resolve

    set_benchmarks(store, make_benchmark("team", 30), make_benchmark("library", 30))
    live = model_digest(resolve("minilm").path)
    judged(store, "20261120-020000-00000001", promote=False, live_digest=live)
    judged(store, "20261121-020000-00000002", promote=False, live_digest="another")
    judged(store, "20261122-020000-00000003", promote=True, live_digest=live)
    judged(store, FIRST, promote=False, live_digest=live)
    plan = plan_evaluation(Settings(data_dir=store.root), store)
    assert (plan.candidate_id, plan.attempt, plan.live_id, plan.live_digest) == (FIRST, 2, "base", live)
    write_candidate(store, SECOND, weights="new")
    assert plan_evaluation(Settings(data_dir=store.root), store).attempt == 3
    assert plan_evaluation(Settings(data_dir=store.root), store, FIRST).attempt == 2


def test_the_plan_names_what_is_missing(store: Store) -> None:
    settings = Settings(data_dir=store.root)
    with pytest.raises(EvaluationError, match="no candidate was trained yet"):
        plan_evaluation(settings, store)
    with pytest.raises(EvaluationError, match="there is no candidate 'nobody'"):
        plan_evaluation(settings, store, "nobody")
    folder = write_candidate(store, FIRST, weights="w")
    with pytest.raises(EvaluationError, match="there is no benchmark"):
        plan_evaluation(settings, store)
    (folder / "training.json").unlink()
    with pytest.raises(EvaluationError, match="unfinished"):
        plan_evaluation(settings, store)
    store.checkpoint_latest.parent.mkdir(parents=True)
    store.checkpoint_latest.symlink_to("checkpoints/gone")
    with pytest.raises(StoreError, match="which does not exist"):
        store.live_checkpoint()


@pytest.fixture
def real_job(store: Store, tmp_path: Path) -> Path:
    """The packaged MiniLM as candidate and as base, on a small benchmark; the job's file."""
    from embed_assets.encoder.resolve import resolve

    set_benchmarks(store, make_benchmark("team", 60), make_benchmark("library", 50))
    folder = write_candidate(store, FIRST, weights="placeholder")
    shutil.rmtree(folder / "model")
    shutil.copytree(resolve("minilm").path, folder / "model")
    job = plan_evaluation(Settings(data_dir=store.root), store)
    write_json(tmp_path / "job.json", job.to_json())
    return tmp_path / "job.json"


def run(job: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "embed_assets.evaluation", str(job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_the_real_model_in_a_process_of_its_own(real_job: Path, store: Store) -> None:
    process = run(real_job)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "| docstring (60 on 60)" in errors
    report = RecallReport.from_json(read_json(store.latest_candidate / "report.json"))
    part = report.slice("docstring")
    assert part is not None
    assert part.ranks["candidate"] == part.ranks["base"]  # the same weights
    assert np.mean([ranks[0] == 1 for ranks in part.ranks["candidate"]]) > 0.9
    verdict = decide(report, GateSettings())
    assert not verdict.promote
    assert not verdict.checks["recall_beats_live"].passed


def test_an_error_is_one_line_and_exit_1(real_job: Path, store: Store, tmp_path: Path) -> None:
    (store.current_benchmark / "benchmark.json").unlink()
    process = run(real_job, EMBED_ASSETS_ERROR_FILE=str(tmp_path / "error"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in errors
    assert "benchmark.json does not exist" in (tmp_path / "error").read_text()


def test_sigterm_leaves_nothing_half_written(real_job: Path, store: Store) -> None:
    process = run(real_job)
    time.sleep(2.0)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM)
    assert not (store.latest_candidate / "report.json").exists()
    assert not list(store.candidates.rglob(".report*"))


def test_progress_reaches_whoever_listens(job: EvaluationJob) -> None:
    seen: list[tuple[str, int, int]] = []
    evaluate_candidate(job, lambda *said: seen.append(said), load=fake)
    embedding = [(done, total) for what, done, total in seen if what == "embedding with candidate"]
    assert embedding[-1][0] == embedding[-1][1] == 2 * (120 + 60) + 120 + 60
    assert seen[-1] == ("ranking", 4, 4)


def test_point_link_is_what_the_plan_follows(store: Store) -> None:
    first, second = write_candidate(store, FIRST, weights="1"), write_candidate(store, SECOND, weights="2")
    set_benchmarks(store, make_benchmark("team", 30))
    assert plan_evaluation(Settings(data_dir=store.root), store).candidate == str(second)
    point_link(store.latest_candidate, first)
    assert plan_evaluation(Settings(data_dir=store.root), store).candidate == str(first)
