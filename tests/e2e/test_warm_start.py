"""A team's checkpoint, another store that starts from it, and the service that answers with what came of it; tiny."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embed_assets.checkpoints.warm_start import WarmStartError, read_warm_start
from embed_assets.encoder.load import load_encoder
from embed_assets.files import read_json, write_json
from embed_assets.settings import Settings
from embed_assets.store import Store
from embed_assets.training.candidate import run_job
from embed_assets.training.job import TrainingJob
from embed_assets.training.plan import plan_training
from tests.serving.running_service import promoted, running, write_checkpoint
from tests.tiny_models import build
from tests.training.made_pairs import pairs_table

QUERY = "retry the webhook"


def settings_for(model: Path, store: Store, start_from: Path | None = None) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": store.root,
            "model": {"name": str(model)},
            "training": {
                "epochs": 2,
                "batch_size": 8,
                "learning_rate": 0.01,
                "device": "cpu",
                "start_from": start_from,
            },
            "serving": {"port": 0, "device": "cpu", "threads": 1},
        }
    )


def night(settings: Settings, store: Store, rows: pl.DataFrame) -> dict[str, object]:
    """Pairs, training, and a checkpoint that is live; no gate, which has tests of its own."""
    store.pairs_dir.mkdir(parents=True)
    rows.write_parquet(store.pairs)
    held_out = {"test_queries": {"commit": 20, "docstring": 10}, "guard_queries": 30}
    write_json(store.pairs_manifest, {"pairs_digest": "abc", "cutoff": 200, **held_out})
    job = plan_training(settings, store)
    assert isinstance(job, TrainingJob)
    trained = run_job(job)
    bundle = Path(shutil.copytree(Path(job.output) / "model", store.root / "bundle"))
    shutil.copytree(Path(job.output) / "adapter", bundle / "adapter")
    shutil.copyfile(Path(job.output) / "training.json", bundle / "training.json")
    write_checkpoint(store, job.candidate_id, bundle, base_model="minilm")
    promoted(store, job.candidate_id)
    return trained


def test_one_repository_on_top_of_the_teams_adapter(tmp_path: Path) -> None:
    model, team, own = build("minilm", tmp_path), Store(tmp_path / "team"), Store(tmp_path / "own")
    rows = pairs_table(120, validation=24)
    latest = team.checkpoint_latest
    with pytest.raises(WarmStartError, match="nothing is promoted there yet"):
        read_warm_start(latest)
    theirs = night(settings_for(model, team), team, rows)  # all repositories, this one too
    settings = settings_for(model, own, start_from=latest)
    of_its_own = rows.tail(60).with_columns(repository=pl.lit("own"))
    trained = night(settings, own, of_its_own)
    cold = Store(tmp_path / "cold")
    assert trained["first_loss"] < night(settings_for(model, cold), cold, of_its_own)["first_loss"]  # type: ignore[operator]
    assert trained["started_from"] == {
        "candidate_id": theirs["candidate_id"],
        "digest": read_warm_start(latest).digest,
    }
    assert read_json(own.checkpoint_latest / "training.json")["learnt_until"] == {"r": 200, "own": 200}
    with running(settings) as service:
        vectors, served = service.client.embed([QUERY], "query")
    assert served.endswith(f"@{trained['candidate_id']}")
    expected = load_encoder(own.checkpoint_latest, device="cpu").encode([QUERY], kind="query")
    assert np.abs(vectors - expected).max() < 1e-5

    for own_folder in (latest, team.latest_candidate, team.candidate(str(theirs["candidate_id"]))):
        with pytest.raises(WarmStartError, match="belongs to this store itself"):
            plan_training(settings_for(model, team, start_from=own_folder), team)
    (latest / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(WarmStartError, match=r"is damaged: adapter/adapter_config.json is not as it was promoted"):
        read_warm_start(latest)
