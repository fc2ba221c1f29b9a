"""Training on several processes as the asset starts it: through Pipes, one log, one candidate."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from embed_assets.defs.child import run_in_child
from embed_assets.files import read_json, write_json
from embed_assets.settings import Settings
from embed_assets.store import Store
from embed_assets.training.job import TrainingJob
from embed_assets.training.plan import plan_training
from tests.tiny_models import build
from tests.training.made_pairs import pairs_table

AS_IF_TWO_GPUS = """
import os
if "WORLD_SIZE" not in os.environ and os.environ.get("AS_IF_TWO_GPUS"):
    from embed_assets.training import launch
    launch.processes = lambda job: 2
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster")
def test_a_process_that_becomes_torchrun_still_speaks_to_dagster(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.pairs_dir.mkdir(parents=True)
    pairs_table(60, validation=24).write_parquet(store.pairs)
    write_json(
        store.pairs_manifest,
        {"pairs_digest": "abc", "cutoff": 1234, "test_queries": {"docstring": 30}, "guard_queries": 30},
    )
    dials = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "device": "cpu"}
    settings = Settings.model_validate({"model": {"name": str(build("minilm", tmp_path))}, "training": dials})
    job = plan_training(settings, store)
    assert isinstance(job, TrainingJob)
    (tmp_path / "sitecustomize.py").write_text(AS_IF_TWO_GPUS)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.setenv("AS_IF_TWO_GPUS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")

    @dg.asset
    def trained(
        context: dg.AssetExecutionContext, child: dg.PipesSubprocessClient
    ) -> Iterator[dg.MaterializeResult[None]]:
        run_in_child("embed_assets.training", job, context=context, client=child, store=store)
        yield dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([trained], resources={"child": dg.PipesSubprocessClient()}, instance=instance)
        assert result.success
        said = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert read_json(store.candidate(job.candidate_id) / "training.json")["ranks"] == 2
    assert sum(f"candidate {job.candidate_id}: loss" in line for line in said) == 1
