"""A job from the plan to the candidate's folder, in a process of its own: whole, or nothing at all."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from embed_assets.encoder.digest import model_digest
from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.load import load_encoder
from embed_assets.files import StoreError, append_line, file_sha256, write_json
from embed_assets.records import NEGATIVE_SCHEMA, REHEARSAL_SCHEMA, query_digest
from embed_assets.settings import Settings
from embed_assets.store import Store
from embed_assets.training import candidate
from embed_assets.training.candidate import load_inputs, run_job
from embed_assets.training.curve import read_curve
from embed_assets.training.errors import TrainingError
from embed_assets.training.job import TrainingJob, read_job
from embed_assets.training.plan import Reuse, Unchanged, Unprovable, plan_training
from embed_assets.training.standalone import train_to_directory
from tests.tiny_models import build
from tests.training.made_pairs import pairs_table


def settings_for(model: Path, **training: Any) -> Settings:
    dials = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "device": "cpu", **training}
    return Settings.model_validate({"model": {"name": str(model)}, "training": dials})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build("minilm", tmp_path)


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with pairs and their manifest."""
    store.pairs_dir.mkdir(parents=True)
    pairs_table(60, validation=24).write_parquet(store.pairs)
    write_json(store.pairs_manifest, manifest_of("abc"))
    return store


def manifest_of(digest: str, *, commits: int = 20, docs: int = 10, guard: int = 30) -> dict[str, Any]:
    """What planning reads of `pairs.json`."""
    held_out = {"commit": commits, "docstring": docs, "issue": 99}
    return {"pairs_digest": digest, "cutoff": 1234, "test_queries": held_out, "guard_queries": guard}


def planned(settings: Settings, store: Store) -> TrainingJob:
    job = plan_training(settings, store)
    assert isinstance(job, TrainingJob)
    return job


def write_history(store: Store) -> None:
    """Sixty rows that all come from commits."""
    pairs_table(60).with_columns(source=pl.lit("commit")).write_parquet(store.pairs)


def show(store: Store, function: str) -> pl.DataFrame:
    """A corpus beside the rows: one function that judges nothing."""
    shown = pl.DataFrame([(function, "d", "s")], schema=dict(NEGATIVE_SCHEMA), orient="row")
    shown.write_parquet(store.pairs_negatives)
    return shown


def test_a_historys_negatives_are_mined_among_what_may_be_shown(
    model: Path, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_history(filled)
    before = planned(settings_for(model), filled)
    shown = show(filled, "run()")
    job = planned(settings_for(model), filled)
    assert (before.negatives, job.negatives) == ("", str(filled.pairs_negatives.absolute()))
    assert job.input_digest != before.input_digest

    def mined(encoder: Encoder, pairs: pl.DataFrame, documents: pl.DataFrame) -> pl.DataFrame:
        assert documents.equals(shown)
        return pairs.with_columns(hard_negatives=pl.concat_list(pl.lit(documents["text"][0]), "hard_negatives"))

    monkeypatch.setattr(candidate, "with_mined_negatives", mined)
    data = load_inputs(job).data
    [place] = np.unique(data.negatives[:, 0])
    assert data.passage_tokens[place] == load_encoder(model, device="cpu").tokenise(["run()"])[0]
    assert data.negatives.shape[1] == 2 and len(np.unique(data.negatives[:, 1])) > 1, "the row's own stays beside it"


def test_a_history_has_a_lexical_teacher_where_the_corpus_is_at_hand(model: Path, filled: Store) -> None:
    write_history(filled)
    assert load_inputs(planned(settings_for(model), filled)).teacher is None
    show(filled, "run()")
    job = planned(settings_for(model), filled)
    teacher = load_inputs(job).teacher
    assert teacher is not None and teacher.share == job.recipe.lexical_share > 0
    with_none = settings_for(model).model_dump()
    with_none["training"]["lexical_share"] = 0
    assert load_inputs(planned(Settings.model_validate(with_none), filled)).teacher is None


def test_the_teacher_reaches_a_jobs_training(model: Path, filled: Store) -> None:
    """With it the adapter is another; everything else is the same, and would give the same bits."""
    write_history(filled)
    show(filled, "run()")
    job = planned(settings_for(model), filled)
    adapters = {}
    for share in (0.0, 1.0):
        folder = Path(f"{job.output}-{share}")
        recipe = replace(job.recipe, epochs=1, lexical_share=share)
        summary = run_job(replace(job, recipe=recipe, output=str(folder), latest_link=""))
        adapters[summary["lexical_teacher"]] = file_sha256(folder / "adapter" / "adapter_model.safetensors")
    assert adapters[True] != adapters[False]


def test_the_corpus_is_read_for_the_teacher_alone_too(
    model: Path, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_history(filled)
    settings = settings_for(model).model_dump()
    settings["pairs"]["hard_negatives"] = 0  # and so nothing is mined
    digests = []
    for text in ("run()", "walk()"):
        show(filled, text)
        job = planned(Settings.model_validate(settings), filled)
        assert not job.recipe.mined and job.negatives
        digests.append(job.input_digest)
    assert len(set(digests)) == 2, "another corpus teaches otherwise"
    monkeypatch.setattr(candidate, "with_mined_negatives", pytest.fail)
    assert load_inputs(job).teacher is not None


def test_a_history_rehearses_and_documentation_does_not(
    model: Path, filled: Store, caplog: pytest.LogCaptureFixture
) -> None:
    documentation = planned(settings_for(model), filled)
    assert "is not there" not in caplog.text, "none is wanted"
    write_history(filled)
    before = planned(settings_for(model), filled)
    assert f"{filled.pairs_rehearsal} is not there: trained without it" in caplog.text
    foreign = [(f"what step {row} does", f"lib.py step{row}\ndef step{row}(): pass") for row in range(20)]
    pl.DataFrame(foreign, schema=dict(REHEARSAL_SCHEMA), orient="row").write_parquet(filled.pairs_rehearsal)
    job = planned(settings_for(model), filled)
    assert (documentation.rehearsal, before.rehearsal) == ("", "")
    assert job.rehearsal == str(filled.pairs_rehearsal.absolute()) and job.input_digest != before.input_digest
    rehearsal = load_inputs(job).rehearsal
    assert rehearsal is not None and rehearsal.weight == job.recipe.rehearsal > 0
    assert len(rehearsal.query_tokens) == 20
    with_none = settings_for(model).model_dump()
    with_none["training"]["rehearsal_weight"] = 0
    assert planned(Settings.model_validate(with_none), filled).rehearsal == ""


def run_child(job: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "embed_assets.training", str(job)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def test_a_night_from_plan_to_candidate_and_the_next_one_trains_nothing(model: Path, filled: Store) -> None:
    settings = settings_for(model)
    job = planned(settings, filled)
    path = filled.runs / "job.json"
    write_json(path, job.to_json())
    assert read_job(path) == job
    child = run_child(path)
    _, errors = child.communicate(timeout=500)
    assert child.returncode == 0, errors

    folder = filled.candidate(job.candidate_id)
    assert filled.latest_candidate.resolve() == folder
    assert sorted(entry.name for entry in folder.iterdir()) == ["adapter", "curve.jsonl", "model", "training.json"]
    trained = json.loads((folder / "training.json").read_text())
    assert (trained["pairs_digest"], trained["cutoff"], trained["rows"]) == ("abc", 1234, 36)
    assert trained["base_digest"] == model_digest(model)
    queries = pairs_table(60, validation=24).filter(pl.col("split") == "train")["query"].to_list()
    assert trained["query_digests"] == sorted({query_digest(query) for query in queries})
    curve = read_curve(folder / "curve.jsonl")
    assert [record.step for record in curve] == list(range(1, trained["steps"] + 1))
    assert curve[-1].validation_mrr is not None
    assert not Path(job.progress_file).exists()

    again = plan_training(settings, filled)
    assert isinstance(again, Reuse)
    assert again.candidate_id == job.candidate_id
    write_json(folder / "verdict.json", {"promote": False})
    assert isinstance(plan_training(settings, filled), Unchanged)
    write_json(folder / "verdict.json", {"promote": True})
    assert isinstance(plan_training(settings, filled), Reuse)
    filled.checkpoint(job.candidate_id).mkdir(parents=True)
    assert isinstance(plan_training(settings, filled), Reuse), "the promotion died before it moved the pointer"
    filled.checkpoint(job.candidate_id).rmdir()
    append_line(filled.history, {"event": "promotion", "id": job.candidate_id, "from": "base"})
    assert isinstance(plan_training(settings, filled), Unchanged), "it was live, rolled back and removed"
    assert isinstance(plan_training(settings, filled, force=True), TrainingJob)
    assert isinstance(plan_training(settings_for(model, seed=7), filled), TrainingJob)
    write_json(filled.pairs_manifest, manifest_of("other"))
    assert isinstance(plan_training(settings, filled), TrainingJob)


def test_what_no_gate_could_promote_is_not_trained_unless_asked_for(model: Path, filled: Store) -> None:
    settings = settings_for(model)
    write_json(filled.pairs_manifest, manifest_of("abc", commits=19))
    plan = plan_training(settings, filled)
    assert isinstance(plan, Unprovable)
    assert "19 commit and 10 docstring queries are held out, and the gate asks for 30" in plan.reason
    assert isinstance(plan_training(settings, filled, force=True), TrainingJob)
    write_json(filled.pairs_manifest, manifest_of("abc", guard=29))
    unguarded = plan_training(settings, filled)
    assert isinstance(unguarded, Unprovable)
    assert "29 queries guard against forgetting, and the gate asks for 30" in unguarded.reason


def test_the_same_job_gives_the_same_files(model: Path, filled: Store, tmp_path: Path) -> None:
    """Two runs, bit for bit: adapter and merged model."""
    from embed_assets.files import directory_digests

    digests = []
    for name in ("first", "second"):
        train_to_directory(settings_for(model), filled.pairs, tmp_path / name)
        digests.append([directory_digests(tmp_path / name / part) for part in ("adapter", "model")])
    assert digests[0] == digests[1]


KILLED = """
import os, signal, sys
from pathlib import Path
from embed_assets.training import loop
from embed_assets.training.candidate import run_job
from embed_assets.training.job import read_job

loop.SAVE_EVERY_SECONDS = -1.0
run_job(read_job(Path(sys.argv[1])), lambda record, steps: record.step == 6 and os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_job_that_was_killed_is_taken_up_by_the_next_one_with_the_same_files(
    model: Path, filled: Store, tmp_path: Path
) -> None:
    """As a night after a power cut: another candidate, the same inputs, not a bit differs from an undisturbed one."""
    from embed_assets.files import directory_digests

    settings = settings_for(model, threads=1)  # bits depend on it, and other tests set this process's
    train_to_directory(settings, filled.pairs, tmp_path / "undisturbed")
    killed = planned(settings, filled)
    write_json(tmp_path / "job.json", killed.to_json())
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "job.json")]
    assert subprocess.run(command, check=False, timeout=500).returncode == -signal.SIGKILL
    assert not filled.candidates.exists() or not list(filled.candidates.iterdir())
    assert Path(killed.progress_file).is_file()

    time.sleep(1.1)  # ids count seconds
    job = planned(settings, filled)
    assert job.candidate_id != killed.candidate_id
    steps: list[int] = []
    run_job(job, lambda record, _: steps.append(record.step))
    folder = filled.candidate(job.candidate_id)
    assert steps[0] == 6
    assert [record.step for record in read_curve(folder / "curve.jsonl")] == list(range(1, steps[-1] + 1))
    for part in ("adapter", "model"):
        assert directory_digests(folder / part) == directory_digests(tmp_path / "undisturbed" / part)
    assert not Path(job.progress_file).exists()


def test_the_prepared_layers_are_gone_before_a_second_model_is_loaded(
    model: Path, filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embed_assets.encoder import flat_encode, flat_lora
    from embed_assets.encoder.flat import transformer_of
    from embed_assets.training import candidate
    from embed_assets.training.adapter import merged_encoder

    load = candidate.load_inputs
    loaded: list[candidate.Prepared] = []
    held: list[bool] = []

    def inputs(job: TrainingJob) -> candidate.Prepared:
        loaded.append(load(job))
        return loaded[0]

    def merged(*args: Any, **kwargs: Any) -> Any:
        transformer = transformer_of(loaded[0].encoder)
        held.extend(transformer in stacks for stacks in (flat_encode._stacks, flat_lora._stacks))
        return merged_encoder(*args, **kwargs)

    monkeypatch.setattr(candidate, "load_inputs", inputs)
    monkeypatch.setattr(candidate, "merged_encoder", merged)
    train_to_directory(settings_for(model), filled.pairs, tmp_path / "out")
    assert held == [False, False]


def test_the_model_is_base_plus_scaled_adapter(model: Path, filled: Store, tmp_path: Path) -> None:
    from embed_assets.training.adapter import merged_encoder

    texts = ["retry the webhook", "parse"]
    train_to_directory(settings_for(model, delta_scale=0.5), filled.pairs, tmp_path / "half")
    base = merged_encoder(model, tmp_path / "half" / "adapter", max_tokens=64)
    served = load_encoder(tmp_path / "half" / "model", device="cpu")
    assert np.abs(base.encode(texts) - served.encode(texts)).max() < 1e-5
    config = json.loads((tmp_path / "half" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"

    train_to_directory(settings_for(model, delta_scale=1.0), filled.pairs, tmp_path / "whole")
    from safetensors.torch import load_file

    half, whole, start = (
        load_file(path / "model.safetensors")["encoder.layer.0.output.dense.weight"]
        for path in (tmp_path / "half" / "model", tmp_path / "whole" / "model", model)
    )
    assert ((whole - start) * 0.5).allclose(half - start, atol=1e-6)


def test_a_terminated_training_leaves_nothing_behind(model: Path, filled: Store) -> None:
    job = planned(settings_for(model, epochs=1000), filled)
    path = filled.runs / "job.json"
    write_json(path, job.to_json())
    child = run_child(path)
    curve = Path(job.run_directory) / "curve.jsonl"
    deadline = time.monotonic() + 500
    while not (curve.exists() and len(curve.read_text().splitlines()) > 3):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=500)
    assert child.returncode == 143
    assert not filled.candidates.exists() or not list(filled.candidates.iterdir())


def test_an_error_is_one_line_and_exit_code_1(model: Path, filled: Store, tmp_path: Path) -> None:
    job = planned(settings_for(model), filled)
    filled.pairs.unlink()
    write_json(tmp_path / "job.json", job.to_json())
    child = run_child(tmp_path / "job.json", EMBED_ASSETS_ERROR_FILE=str(tmp_path / "said"))
    _, errors = child.communicate(timeout=500)
    assert child.returncode == 1
    assert "Traceback" not in errors
    assert f"error: pairs file {filled.pairs} does not exist" in errors
    assert (tmp_path / "said").read_text().startswith(f"pairs file {filled.pairs} does not exist")


def test_a_file_that_is_no_job(tmp_path: Path) -> None:
    write_json(tmp_path / "job.json", {"candidate_id": "x"})
    with pytest.raises(TrainingError, match="is no training job"):
        read_job(tmp_path / "job.json")


def test_no_pairs_yet(model: Path, store: Store) -> None:
    with pytest.raises(TrainingError, match="materialise contrastive_pairs first"):
        plan_training(settings_for(model), store)


def test_an_output_folder_that_exists(model: Path, filled: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="exists already; name a folder that does not"):
        train_to_directory(settings_for(model), filled.pairs, tmp_path)


def test_a_run_that_fails_in_the_middle_leaves_no_candidate(
    model: Path, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("embed_assets.training.candidate.save_model", broken)
    job = planned(settings_for(model), filled)
    with pytest.raises(OSError, match="no space left"):
        run_job(job)
    assert not list(filled.candidates.iterdir())
    assert not filled.latest_candidate.is_symlink()
