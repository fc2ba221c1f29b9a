"""A night that learns: promoted, served without a restart, rolled back, and the same again bit for bit."""

import base64
import json
from pathlib import Path

import dagster as dg
import pytest

from embed_assets.checkpoints.verdict import read_report
from embed_assets.files import directory_digests, read_json, read_lines
from embed_assets.pairs.manifest import read_manifest
from tests.e2e.conftest import QUESTION, Night

pytestmark = pytest.mark.slow


def test_a_good_candidate_is_promoted_and_the_running_service_swaps_it_in(good: Night) -> None:
    assert good.done.returncode == 0, good.done.stderr
    assert json.loads(good.done.stdout)["outcome"] == "promoted"
    assert good.team.live_id == good.team.candidate_id
    assert good.served_before.endswith("@base")
    assert good.served_after.endswith(f"@{good.team.live_id}")
    assert (good.team.store.checkpoint_latest / "model.safetensors").is_file()


def test_status_says_what_is_live_and_how_good_it_is(good: Night) -> None:
    state = json.loads(good.team.run("status", "--json").stdout)
    assert state["live"]["id"] == good.team.live_id
    recall = state["recall"]["docstring"]
    assert recall["live"]["mrr_at_10"] > recall["base"]["mrr_at_10"] + 0.05
    assert state["candidate"]["promote"] is True
    assert state["service"] == {}
    assert f"live       {good.team.live_id} since " in good.team.run("status").stdout


def test_four_bad_repositories_do_not_lose_the_night_and_each_is_named_once(good: Night) -> None:
    manifest = read_manifest(good.team.store)
    assert set(manifest.by_repository) == {"code"}
    expected = {
        "notes": "not a git repository",
        "empty": "the history is empty",
        "shallow": "a shallow clone",
        "branchless": "there is no branch 'release'; there are main",
    }
    assert manifest.failed.keys() == expected.keys()
    [check] = json.loads(good.done.stdout)["reasons"]
    for name, said in expected.items():
        assert said in manifest.failed[name]
        assert said in check
    [alert] = good.told
    assert alert["failed_checks"] == [check]
    assert check.startswith("code_snippets.repositories_readable: ")


def test_a_night_with_nothing_new_trains_nothing_and_changes_nothing(good: Night, tmp_path: Path) -> None:
    team = good.team.copy(tmp_path / "team")
    done = team.run("run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unchanged\n")
    assert "\n- same pairs, base model and recipe as candidate " in done.stdout
    assert (team.live_id, team.candidate_id) == (good.team.live_id, good.team.candidate_id)
    assert len(list(team.store.candidates.glob("[!.l]*"))) == 1
    assert read_lines(team.store.history) == read_lines(good.team.store.history)


def test_rollback_is_followed_by_the_service_and_so_is_the_way_forward(good: Night, tmp_path: Path) -> None:
    team, promoted = good.team.copy(tmp_path / "team"), good.team.live_id
    with team.serving() as service:
        assert service.embed([QUESTION])[1].endswith(f"@{promoted}"), "a start serves what is promoted"
        for arguments, expected in ((("rollback",), "base"), (("rollback", "--to", promoted), promoted)):
            done = team.run(*arguments)
            assert done.returncode == 0, done.stderr
            assert f"rolled back to {expected}" in done.stdout
            assert team.live_id == expected
            assert service.embed([QUESTION])[1].endswith(f"@{expected}")
        answer = json.loads(team.run("embed", "--json", QUESTION).stdout)
        assert answer["model"].endswith(f"@{promoted}")
    done = team.run("promote")
    assert (done.returncode, team.live_id) == (0, promoted), "what is live already may be promoted again"


def test_the_same_inputs_and_seed_give_the_nights_adapter_again_bit_for_bit(good: Night, tmp_path: Path) -> None:
    """Another process, another command, the same bytes. That another seed differs, tests/training shows."""
    team = good.team.copy(tmp_path / "team")
    night = directory_digests(team.store.candidate(team.candidate_id) / "adapter")
    done = team.run("train", "--output-dir", str(tmp_path / "trained"))
    assert done.returncode == 0, done.stderr
    assert directory_digests(tmp_path / "trained" / "adapter") == night
    assert team.live_id == good.team.live_id, "the trainer alone promotes nothing"


def test_a_damaged_checkpoint_is_named_and_not_gone_back_to(good: Night, tmp_path: Path) -> None:
    team, promoted = good.team.copy(tmp_path / "team"), good.team.live_id
    assert team.run("rollback").returncode == 0
    weights = team.store.checkpoint(promoted) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    done = team.run("rollback", "--to", promoted)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert f"checkpoint {promoted}: model.safetensors was changed" in line
    assert team.live_id == "base"


def test_the_trainings_figures_its_curve_and_its_log_reach_dagster(good: Night, tmp_path: Path) -> None:
    """Training and evaluation ran in processes of their own; what they said came through Pipes."""
    team = good.team.copy(tmp_path / "team")
    trained = read_json(team.store.candidate(team.candidate_id) / "training.json")
    with dg.DagsterInstance.from_config(str(team.store.dagster_home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("finetuned_adapter"))
        assert event is not None and event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        said = "\n".join(entry.user_message for entry in instance.all_logs(event.run_id))
    for name in ("rows", "lexical_teacher", "rehearsed", "steps", "final_loss", "samples_per_second"):
        assert metadata[name].value == trained[name]
    decides = read_report(team.store, team.candidate_id).slice("docstring")
    assert decides is not None
    before, after = (
        [1 / found[0] if found and found[0] <= 10 else 0.0 for found in decides.ranks[system]]
        for system in ("live", "candidate")
    )
    gain = float(str(metadata["gain"].value))
    assert gain == pytest.approx((sum(after) - sum(before)) / len(before), abs=1e-9)
    assert gain > 0.05
    for plot in ("loss_curve", "recall_plot"):
        encoded = str(metadata[plot].value).split("data:image/png;base64,")[1].rstrip(")")
        assert base64.b64decode(encoded).startswith(b"\x89PNG")
    assert f"step {trained['steps']}/{trained['steps']}  loss" in said
    assert "samples/s" in said
    assert f"evaluated candidate {team.candidate_id}" in said
    assert "DEBUG" not in said and "Building index" not in said
