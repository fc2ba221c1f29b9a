"""A training that starts from another store's adapter: exactly from there, from nothing else, and it says so."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from embed_assets.checkpoints.warm_start import WarmStartError, read_warm_start
from embed_assets.encoder.load import load_encoder
from embed_assets.evaluation.lineage import find_leaks
from embed_assets.files import directory_digests, read_json, write_json
from embed_assets.records import query_digest
from embed_assets.settings import Settings
from embed_assets.store import Store
from embed_assets.training.adapter import adapter_state, add_adapter
from embed_assets.training.candidate import run_job
from embed_assets.training.errors import TrainingError
from embed_assets.training.job import TrainingJob
from embed_assets.training.loop import train
from embed_assets.training.plan import Reuse, build_job, plan_training
from embed_assets.training.recipe import Recipe
from embed_assets.training.warm_start import begin_from
from tests.evaluation.made_store import make_benchmark
from tests.tiny_models import build
from tests.training.made_pairs import ONE_GO, pairs_table, tiny_data, tiny_recipe

TEXTS = ["retry the webhook", "parse", "def run3(cache): return race(3)"]


def settings_for(model: Path, **training: Any) -> Settings:
    dials = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "lora_rank": 4, "device": "cpu", **training}
    return Settings.model_validate({"model": {"name": str(model)}, "training": dials})


def job_for(settings: Settings, pairs: pl.DataFrame, folder: Path, **changes: Any) -> TrainingJob:
    folder.mkdir(parents=True, exist_ok=True)
    pairs.write_parquet(folder / "pairs.parquet")
    return build_job(
        settings, pairs=folder / "pairs.parquet", pairs_digest=folder.name, runs=folder / "runs",
        **{"cutoff": 1234, "candidates": folder, "output": folder / "candidate", **changes},
    )  # fmt: skip


def still(job: TrainingJob) -> TrainingJob:
    """The same job at a rate of zero: it learns nothing."""
    recipe = Recipe.from_json({**job.recipe.to_json(), "learning_rate": 0.0})
    return TrainingJob.from_json({**job.to_json(), "recipe": recipe.to_json()})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("minilm", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def team(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidate of the team's store, trained on repository `r` up to 1234."""
    folder = tmp_path_factory.mktemp("team")
    run_job(job_for(settings_for(model), pairs_table(60, validation=24), folder))
    return folder / "candidate"


@pytest.fixture
def copy(team: Path, tmp_path: Path) -> Path:
    """The team's candidate, to be damaged."""
    return Path(shutil.copytree(team, tmp_path / "copy"))


@pytest.mark.parametrize("rank", [None, 4, 6])
def test_a_run_that_learns_nothing_exports_what_it_started_from(
    model: Path, team: Path, tmp_path: Path, rank: int | None
) -> None:
    """At the start's own scale, bit for bit; a higher rank adds columns that add nothing."""
    settings = settings_for(model, start_from=team, lora_rank=rank)
    job = job_for(settings, pairs_table(40), tmp_path / "own")
    assert (job.recipe.lora_rank, job.recipe.delta_scale) == (rank or 4, 0.75)
    run_job(still(job))
    own = tmp_path / "own" / "candidate"
    if rank in (None, 4):
        weights = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (team, own)]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        assert directory_digests(own / "model") == directory_digests(team / "model")
    theirs, ours = (load_encoder(folder / "model", device="cpu").encode(TEXTS) for folder in (team, own))
    assert np.abs(theirs - ours).max() < 1e-6
    assert np.abs(theirs - load_encoder(model, device="cpu").encode(TEXTS)).max() > 0.01


@pytest.mark.parametrize("alias", ["minilm", "qodo"])
def test_what_a_start_at_another_scale_adds_is_the_whole_change_before_the_first_step(
    alias: str, tmp_path: Path
) -> None:
    path = build(alias, tmp_path / "models")
    run_job(job_for(settings_for(path, delta_scale=0.4), pairs_table(30), tmp_path / "team"))
    start = read_warm_start(tmp_path / "team" / "candidate")
    assert (start.delta_scale, start.rank, start.alpha) == (0.4, 4, 8)
    run_job(job_for(settings_for(path, delta_scale=1.0), pairs_table(30), tmp_path / "whole"))
    encoder = load_encoder(path, device="cpu")
    recipe = tiny_recipe(alias)
    add_adapter(encoder, recipe)
    begin_from(encoder.model, start, recipe)
    whole = load_encoder(tmp_path / "whole" / "candidate" / "model", device="cpu")
    assert np.abs(encoder.encode(TEXTS) - whole.encode(TEXTS)).max() < 2e-5


def test_another_ratio_of_alpha_to_rank_changes_nothing(team: Path, model: Path) -> None:
    encoder = load_encoder(model, device="cpu")
    recipe = tiny_recipe()
    add_adapter(encoder, recipe)
    begin_from(encoder.model, read_warm_start(team), recipe)
    expected = encoder.encode(TEXTS)
    encoder = load_encoder(model, device="cpu")
    halved = tiny_recipe(lora_alpha=recipe.lora_alpha // 2)
    add_adapter(encoder, halved)
    begin_from(encoder.model, read_warm_start(team), halved)
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-6


def test_columns_beyond_the_starts_rank_learn(team: Path, model: Path, tmp_path: Path) -> None:
    path, data = tiny_data(tmp_path)
    encoder = load_encoder(path, device="cpu")
    train(encoder, data, tiny_recipe(lora_rank=6, lora_alpha=12), start=read_warm_start(team), plan=ONE_GO)
    learnt = adapter_state(encoder.model)
    assert all(tensor[:, 4:].abs().max() > 0 for name, tensor in learnt.items() if "lora_B" in name)


def test_a_warm_start_is_better_from_the_first_step_on_and_its_descent_is_told(
    model: Path, team: Path, tmp_path: Path
) -> None:
    """Half of the rows are the team's own, among them those that validate: what it knows is there before a step."""
    rows = pairs_table(120).with_columns(repository=pl.lit("own"))
    rows = rows.with_columns(split=pl.when(pl.col("written_at") < 24).then(pl.lit("validation")).otherwise("split"))
    cold = run_job(job_for(settings_for(model), rows, tmp_path / "cold"))
    settings = settings_for(model, start_from=team)
    job = job_for(settings, rows, tmp_path / "warm", cutoff=150)
    warm = run_job(job)
    assert warm["first_loss"] < 0.9 * cold["first_loss"]
    assert warm["validation_mrr_before"] > cold["validation_mrr_before"]

    start = read_warm_start(team)
    assert cold["started_from"] is None
    assert warm["started_from"] == {"candidate_id": start.start_id, "digest": start.digest}
    theirs = read_json(team / "training.json")
    own = {query_digest(query) for query in rows.filter(pl.col("split") == "train")["query"].to_list()}
    assert set(warm["query_digests"]) == own | set(theirs["query_digests"])
    assert (theirs["learnt_until"], warm["learnt_until"]) == ({"r": 1234}, {"r": 1234, "own": 150})
    assert warm["cutoff"] == 150, "the team's T is about other repositories"
    again = run_job(job_for(settings_for(model, start_from=tmp_path / "warm" / "candidate"), rows, tmp_path / "third"))
    assert set(again["query_digests"]) == set(warm["query_digests"])
    assert again["learnt_until"] == {"r": 1234, "own": 1234}


def test_the_start_decides_the_id_and_an_unchanged_night_knows_it(
    model: Path, team: Path, copy: Path, store: Store
) -> None:
    store.pairs_dir.mkdir(parents=True)
    pairs_table(30).write_parquet(store.pairs)
    held_out = {"test_queries": {"commit": 20, "docstring": 10}, "guard_queries": 30}
    write_json(store.pairs_manifest, {"pairs_digest": "abc", "cutoff": 1234, **held_out})
    cold = plan_training(settings_for(model), store)
    warm = plan_training(settings_for(model, start_from=team), store)
    assert isinstance(cold, TrainingJob) and isinstance(warm, TrainingJob)
    assert cold.input_digest != warm.input_digest
    run_job(warm)
    assert isinstance(plan_training(settings_for(model, start_from=copy), store), Reuse), "the same, elsewhere"
    assert isinstance(plan_training(settings_for(model), store), TrainingJob)
    altered = copy / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor + 1e-3 for name, tensor in load_file(altered).items()}, altered)
    other = plan_training(settings_for(model, start_from=copy), store)
    assert isinstance(other, TrainingJob)
    shutil.rmtree(copy / "adapter")
    shutil.copytree(team / "adapter", copy / "adapter")
    with pytest.raises(TrainingError, match="has changed since this run was planned"):
        run_job(other)


def test_what_the_start_has_learnt_is_a_leak_where_it_judges(model: Path, team: Path, tmp_path: Path) -> None:
    """The start's own rows hold a query that the benchmark asks; this store's do not."""
    benchmark = make_benchmark("shop", 3)
    asked = benchmark.queries["text"].to_list()[0]
    rows = pairs_table(30)
    taught = rows.with_columns(query=pl.when(pl.col("pair_id") == "0").then(pl.lit(asked)).otherwise(pl.col("query")))
    run_job(job_for(settings_for(model), taught, tmp_path / "team", cutoff=0))
    run_job(job_for(settings_for(model, start_from=tmp_path / "team" / "candidate"), rows, tmp_path / "own", cutoff=0))
    run_job(job_for(settings_for(model, start_from=team), rows, tmp_path / "clean", cutoff=0))
    theirs = read_json(tmp_path / "team" / "candidate" / "training.json")
    assert (theirs["cutoff"], theirs["learnt_until"]) == (0, {"r": 29}), "without a T, the newest of its rows"
    [leak] = find_leaks(benchmark, tmp_path / "own" / "candidate", None)
    assert "was trained on 1 of the queries asked here" in leak
    assert find_leaks(benchmark, tmp_path / "clean" / "candidate", None) == ()


def refused(settings: Settings, folder: Path) -> str:
    with pytest.raises((TrainingError, WarmStartError)) as caught:
        run_job(job_for(settings, pairs_table(20), folder))
    assert not (folder / "candidate").exists()
    return str(caught.value)


def test_what_does_not_fit_is_refused_before_anything_is_loaded(model: Path, team: Path, tmp_path: Path) -> None:
    low = refused(settings_for(model, start_from=team, lora_rank=2), tmp_path)
    assert "has rank 4, training.lora_rank is 2; allowed: 4 or more, or unset" in low
    other = build("e5-large", tmp_path / "other")
    assert "changes base model minilm (" in refused(settings_for(other, start_from=team), tmp_path)


def test_other_layers_are_refused(model: Path, copy: Path, tmp_path: Path) -> None:
    config = copy / "adapter" / "adapter_config.json"
    document = json.loads(config.read_text())
    write_json(config, {**document, "target_modules": ["query", "value"]})
    said = refused(settings_for(model, start_from=copy), tmp_path / "own")
    assert "changes the layers query, value, this recipe dense, key, query, value" in said
    write_json(config, document)
    weights = copy / "adapter" / "adapter_model.safetensors"
    tensors = load_file(weights)
    gone = sorted(tensors)[0]
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, weights)
    assert f"not in both, such as {gone}" in refused(settings_for(model, start_from=copy), tmp_path / "own")


def test_what_is_nothing_to_start_from_is_named(model: Path, copy: Path, tmp_path: Path) -> None:
    def said(path: Path) -> str:
        return refused(settings_for(model, start_from=path), tmp_path / "own")

    assert f"{tmp_path / 'none'} does not exist; allowed: a checkpoint or a candidate" in said(tmp_path / "none")
    assert "nothing is promoted there yet" in said(tmp_path / "checkpoint-latest")
    assert "is a model without an adapter: there is nothing to start from; allowed" in said(model)
    assert "holds no adapter to start from; allowed" in said(tmp_path)
    training = (copy / "training.json").read_text()
    (copy / "training.json").unlink()
    assert "has no training.json, so nobody knows what it has learnt from" in said(copy)
    document = json.loads(training)
    write_json(copy / "training.json", {name: value for name, value in document.items() if name != "learnt_until"})
    assert "this version cannot read (KeyError('learnt_until')); train it again" in said(copy)
    (copy / "training.json").write_text(training[:50])
    assert "is damaged" in said(copy)
    (copy / "training.json").write_text(training)
    shutil.rmtree(copy / "adapter")
    assert "has lost its adapter" in said(copy)


def test_a_damaged_adapter_is_named(model: Path, copy: Path, tmp_path: Path) -> None:
    weights = copy / "adapter" / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = sorted(tensors)[0]
    save_file({**tensors, first: tensors[first][:2].contiguous()}, weights)
    assert f"{first} has shape (2, " in refused(settings_for(model, start_from=copy), tmp_path / "own")
    save_file({**tensors, first: tensors[first] * float("nan")}, weights)
    assert f"{first} holds values that are no numbers" in refused(
        settings_for(model, start_from=copy), tmp_path / "own"
    )
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"{weights} is damaged" in refused(settings_for(model, start_from=copy), tmp_path / "own")
