"""What an asset does besides calling its stage."""

import logging

import dagster as dg
import pytest

from embed_assets.defs import assets
from embed_assets.defs.resources import Project
from embed_assets.store import Store
from embed_assets.training.plan import Unchanged


def test_a_damaged_record_of_the_past_is_warned_of_and_the_night_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBED_ASSETS_DATA_DIR", str(store.root))
    monkeypatch.setattr(assets, "plan_training", lambda *_, **__: Unchanged(reason="as it was", candidate_id="a"))
    store.live.parent.mkdir(parents=True)
    store.live.write_text("{")
    resources = {"project": Project(), "child": dg.PipesSubprocessClient()}
    with dg.instance_for_test() as instance:
        result = dg.materialize([assets.finetuned_adapter], resources=resources, instance=instance)
        entries = instance.all_logs(result.run_id)
    assert result.success
    said = {entry.user_message: entry.level for entry in entries}
    assert said["as it was"] == logging.INFO
    [warning] = [message for message, level in said.items() if level == logging.WARNING]
    assert str(store.live) in warning
