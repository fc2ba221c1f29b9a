"""A job on several processes: started as torchrun where there are several GPUs, one candidate, one log, one end."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from embed_assets.encoder.layout import parameter_count
from embed_assets.encoder.resolve import resolve
from embed_assets.files import read_json, write_json
from embed_assets.models import CATALOGUE
from embed_assets.settings import Settings
from embed_assets.store import Store
from embed_assets.training import launch
from embed_assets.training.curve import read_curve
from embed_assets.training.job import TrainingJob
from embed_assets.training.plan import plan_training
from tests.processes import wait_until_gone
from tests.tiny_models import build
from tests.training.made_pairs import pairs_table


@pytest.fixture
def filled(store: Store) -> Store:
    store.pairs_dir.mkdir(parents=True)
    pairs_table(60, validation=24).write_parquet(store.pairs)
    write_json(
        store.pairs_manifest,
        {"pairs_digest": "abc", "cutoff": 1234, "test_queries": {"docstring": 30}, "guard_queries": 30},
    )
    return store


def job_file(store: Store, model: Path, **training: Any) -> tuple[TrainingJob, Path]:
    dials = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "device": "cpu", **training}
    job = plan_training(Settings.model_validate({"model": {"name": str(model)}, "training": dials}), store, force=True)
    assert isinstance(job, TrainingJob)
    path = store.runs / job.candidate_id / "training.job.json"
    write_json(path, job.to_json())
    return job, path


def start(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip


def test_with_several_gpus_the_process_becomes_torchrun(
    filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = job_file(filled, build("minilm", tmp_path), device="auto")
    became: list[list[str]] = []
    monkeypatch.setattr(launch, "LARGE_FROM_PARAMETERS", 1_000)
    monkeypatch.setattr(launch, "die_with_the_parent", lambda: None)
    monkeypatch.setattr("os.execv", lambda program, command: became.append([program, *command[1:]]))
    for gpus in (0, 1, 4, 100):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        launch.become_torchrun_where_it_pays("embed_assets.training", [str(path)])
    assert [command[command.index("--nproc-per-node") + 1] for command in became] == ["4", "8"]  # no more than rows
    assert became[0][-3:] == ["-m", "embed_assets.training", str(path)]
    monkeypatch.setenv("WORLD_SIZE", "4")
    launch.become_torchrun_where_it_pays("embed_assets.training", [str(path)])
    launch.become_torchrun_where_it_pays("embed_assets.training", [str(tmp_path / "missing.json")])
    launch.become_torchrun_where_it_pays("embed_assets.training", [])
    assert len(became) == 2


def test_a_small_model_trains_on_one_of_several_gpus(
    filled: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("minilm", tmp_path)
    job, _ = job_file(filled, model, device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert launch.processes(job) == 1
    monkeypatch.setattr(launch, "LARGE_FROM_PARAMETERS", parameter_count(model))
    assert launch.processes(job) == 4
    assert launch.processes(replace(job, device="cpu")) == 1


def test_parameters_are_counted_without_loading_them() -> None:
    assert parameter_count(resolve("minilm").path) == CATALOGUE["minilm"].parameters


def test_two_processes_write_one_candidate_with_the_losses_of_one_process(filled: Store, tmp_path: Path) -> None:
    model = build("minilm", tmp_path)
    curves = []
    for count in (1, 2):
        job, path = job_file(filled, model)
        command = launch.torchrun(count, "embed_assets.training", [str(path)])
        child = start(command)
        _, errors = child.communicate(timeout=500)
        assert child.returncode == 0, errors[-3000:]
        folder = filled.candidate(job.candidate_id)
        assert read_json(folder / "training.json")["ranks"] == count
        curves.append(read_curve(folder / "curve.jsonl"))
        assert len(read_curve(Path(job.run_directory) / "curve.jsonl")) == len(curves[-1])
        assert errors.count(f"candidate {job.candidate_id}") == 1  # of all ranks the first speaks
        time.sleep(1.1)  # ids count seconds
    alone, together = curves
    assert [record.loss for record in together] == pytest.approx([record.loss for record in alone], rel=3e-2)
    assert [record.validation_mrr for record in together] == pytest.approx(
        [record.validation_mrr for record in alone], abs=0.1
    )


def test_a_cancel_reaches_every_process_and_leaves_nothing(filled: Store, tmp_path: Path) -> None:
    job, path = job_file(filled, build("minilm", tmp_path), epochs=1000)
    child = start(launch.torchrun(2, "embed_assets.training", [str(path)]))
    curve = Path(job.run_directory) / "curve.jsonl"
    deadline = time.monotonic() + 500
    while not (curve.exists() and len(curve.read_text().splitlines()) > 3):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = psutil.Process(child.pid).children(recursive=True)
    assert len(workers) >= 2
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=500)
    assert child.returncode != 0
    wait_until_gone(*workers)
    assert not filled.candidates.exists() or not list(filled.candidates.iterdir())


def test_an_error_of_one_process_ends_all_with_one_line(filled: Store, tmp_path: Path) -> None:
    _, path = job_file(filled, build("minilm", tmp_path))
    filled.pairs.unlink()
    said = tmp_path / "said"
    child = subprocess.Popen(
        launch.torchrun(2, "embed_assets.training", [str(path)]), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "EMBED_ASSETS_ERROR_FILE": str(said)},
    )  # fmt: skip
    child.communicate(timeout=500)
    assert child.returncode == 1
    assert said.read_text().startswith(f"pairs file {filled.pairs} does not exist")
