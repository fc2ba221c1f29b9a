"""What is removed to bound the disk, and what never is."""

import os
import time
from pathlib import Path

import pytest

from embed_assets.checkpoints.live import RollbackError, checkpoint_ids, rollback
from embed_assets.checkpoints.manifest import verify
from embed_assets.checkpoints.promote import promote
from embed_assets.checkpoints.retention import Pruned, prune
from embed_assets.evaluation.benchmark import write_benchmark
from embed_assets.evaluation.errors import EvaluationError
from embed_assets.evaluation.job import plan_evaluation, refused_attempts
from embed_assets.settings import GateSettings, RetentionSettings, Settings
from embed_assets.store import Store, read_json, read_lines, write_json
from tests.checkpoints.test_promote import live_id, prepare
from tests.evaluation.made_store import make_benchmark

NIGHTS = [f"202611{day:02}-020000-aaaaaaaa" for day in range(1, 9)]


def nights(store: Store, *names: str) -> None:
    """One promotion a night."""
    for name in names:
        prepare(store, name)
        promote(store, None, GateSettings())


def kept(checkpoints: int = 100, candidates: int = 100) -> RetentionSettings:
    return RetentionSettings(checkpoints=checkpoints, candidates=candidates)


def age(path: Path) -> None:
    long_ago = time.time() - 2 * 86_400
    os.utime(path, (long_ago, long_ago))


def test_the_newest_checkpoints_stay_besides_the_live_one_and_the_one_before(store: Store) -> None:
    nights(store, *NIGHTS)
    pruned = prune(store, kept(checkpoints=2))
    assert pruned.checkpoints == tuple(NIGHTS[:4])
    assert checkpoint_ids(store) == NIGHTS[4:]
    assert sorted(path.name for path in store.checkpoints.iterdir()) == NIGHTS[4:]
    assert pruned.bytes > 0
    assert "4 old checkpoints" in pruned.line
    assert live_id(store) == NIGHTS[-1]
    assert [event["id"] for event in read_lines(store.history)] == NIGHTS
    assert not prune(store, kept(checkpoints=2))


def test_live_and_the_way_back_stay_however_old_they_are(store: Store) -> None:
    nights(store, *NIGHTS)
    rollback(store, NIGHTS[1])
    prune(store, kept(checkpoints=0))
    assert checkpoint_ids(store) == NIGHTS[:2]
    assert rollback(store).checkpoint_id == NIGHTS[0]
    prune(store, kept(checkpoints=0))
    assert checkpoint_ids(store) == NIGHTS[:1]
    assert rollback(store).checkpoint_id == "base"


def test_what_the_service_serves_stays(store: Store) -> None:
    nights(store, *NIGHTS[:4])
    write_json(store.live, {"checkpoint_id": NIGHTS[0]})
    prune(store, kept(checkpoints=0))
    assert checkpoint_ids(store) == [NIGHTS[0], *NIGHTS[2:4]]
    for name in checkpoint_ids(store):
        verify(store.checkpoint(name))


def test_a_rollback_to_a_removed_checkpoint_says_that_it_was_removed(store: Store) -> None:
    nights(store, *NIGHTS[:3])
    prune(store, kept(checkpoints=0))
    with pytest.raises(RollbackError, match=f"{NIGHTS[0]} was removed to make room .*Known are: base, {NIGHTS[1]}"):
        rollback(store, NIGHTS[0])
    assert live_id(store) == NIGHTS[2]


def test_old_candidates_lose_their_weights_and_keep_what_was_said_of_them(store: Store) -> None:
    for name in NIGHTS[:5]:
        prepare(store, name)
        write_json(store.candidate(name) / "verdict.json", {"promote": False})
    live_digest = read_json(store.candidate(NIGHTS[0]) / "report.json")["live_digest"]
    attempts = refused_attempts(store, live_digest, NIGHTS[4])
    pruned = prune(store, kept(candidates=2))
    assert pruned.candidates == tuple(NIGHTS[:3])
    for name in NIGHTS[:3]:
        left = sorted(path.name for path in store.candidate(name).iterdir())
        assert left == ["report.json", "training.json", "verdict.json"]
    assert all((store.candidate(name) / "model").is_dir() for name in NIGHTS[3:5])
    assert refused_attempts(store, live_digest, NIGHTS[4]) == attempts == 4
    with pytest.raises(EvaluationError, match="weights were removed to make room"):
        plan_evaluation(Settings(data_dir=store.root), store, NIGHTS[0])
    assert not prune(store, kept(candidates=2))


def test_the_latest_candidate_keeps_its_weights(store: Store) -> None:
    prepare(store, NIGHTS[0])
    assert prune(store, kept(candidates=1)) == Pruned(
        checkpoints=(), candidates=(), benchmarks=(), unfinished=(), bytes=0
    )
    prepare(store, NIGHTS[1])
    assert prune(store, kept(candidates=1)).candidates == (NIGHTS[0],)
    assert (store.latest_candidate / "model").is_dir()


def test_benchmarks_nobody_is_judged_on_go_once_they_are_a_day_old(store: Store) -> None:
    prepare(store, NIGHTS[0])
    old, fresh = (write_benchmark(make_benchmark(name, 20), store.benchmarks) for name in ("old", "fresh"))
    age(old)
    for link in (store.current_benchmark, store.guard_benchmark):
        age(link.resolve())
    assert prune(store, kept()).benchmarks == (old.name,)
    assert fresh.is_dir() and store.current_benchmark.is_dir() and store.guard_benchmark.is_dir()


def test_folders_of_processes_that_died_go_once_they_are_a_day_old(store: Store) -> None:
    prepare(store, NIGHTS[0])
    dead, at_work = store.candidates / ".20261101.abc", store.candidates / ".20261102.abc"
    for folder in (dead, at_work):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
    age(dead)
    assert prune(store, kept()).unfinished == (dead.name,)
    assert at_work.is_dir() and not dead.exists()


def test_an_empty_store_has_nothing_to_remove(store: Store) -> None:
    assert not prune(store, RetentionSettings())
