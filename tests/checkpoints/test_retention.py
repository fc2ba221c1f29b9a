"""What is removed to bound the disk, and what never is."""

import os
import shutil
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
from embed_assets.files import read_json, read_lines, write_json
from embed_assets.settings import GateSettings, RetentionSettings, Settings
from embed_assets.store import Store
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


def age(path: Path, days: float = 2) -> None:
    long_ago = time.time() - days * 86_400
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


def test_weights_half_removed_when_the_process_died_go_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NIGHTS[:2]:
        prepare(store, name)

    def power_cut(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", power_cut)
        prune(store, kept(candidates=1))
    hidden = store.candidate(NIGHTS[0]) / ".model.removed"
    age(hidden)
    assert prune(store, kept(candidates=1)).unfinished == (hidden.name,)
    assert not hidden.exists()


def test_progress_that_no_night_went_on_from_goes_after_two_days(store: Store) -> None:
    store.runs.mkdir(parents=True)
    names = ("progress-0123456789abcdef.safetensors", ".progress-0123456789abcdef.safetensors.x1")
    for name in (*names, "progress-fedcba9876543210.safetensors"):
        (store.runs / name).write_bytes(b"adapter")
    for name in names:
        age(store.runs / name, days=3)
    age(store.runs / "progress-fedcba9876543210.safetensors", days=1.1)  # the next night may begin a little later
    assert sorted(prune(store, kept()).unfinished) == sorted(names)
    assert [path.name for path in store.runs.iterdir()] == ["progress-fedcba9876543210.safetensors"]


@pytest.mark.parametrize("damage", [b"{", b"[]", b"\xff"])
def test_what_is_served_is_in_doubt_so_no_checkpoint_goes(store: Store, damage: bytes) -> None:
    nights(store, *NIGHTS[:4])
    store.live.parent.mkdir()
    store.live.write_bytes(damage)
    pruned = prune(store, kept(checkpoints=0, candidates=1))
    assert checkpoint_ids(store) == NIGHTS[:4]
    assert pruned.candidates == tuple(NIGHTS[:3]), "what does not depend on it goes"
    [doubt] = pruned.in_doubt
    assert doubt.startswith(f"old checkpoints stay: {store.live} is damaged")


def test_a_damaged_history_leaves_the_way_back_in_doubt_so_no_checkpoint_goes(store: Store) -> None:
    nights(store, *NIGHTS[:4])
    store.history.write_bytes(b"\xff\n" + store.history.read_bytes())
    [doubt] = prune(store, kept(checkpoints=0)).in_doubt
    assert doubt.startswith(f"old checkpoints stay: {store.history}, line 1 is damaged")
    assert checkpoint_ids(store) == NIGHTS[:4]


def test_a_damaged_report_leaves_in_doubt_what_it_was_made_on(store: Store) -> None:
    prepare(store, NIGHTS[0])
    prepare(store, NIGHTS[1])
    old = write_benchmark(make_benchmark("old", 20), store.benchmarks)
    age(old)
    report = store.candidate(NIGHTS[0]) / "report.json"
    report.write_text("{")
    [doubt] = prune(store, kept()).in_doubt
    assert doubt.startswith(f"old benchmarks stay: {report} is damaged")
    assert old.is_dir()
    write_json(store.candidate(NIGHTS[0]) / "verdict.json", {"promote": False})
    assert refused_attempts(store, "any", NIGHTS[1]) == 1, "and it counts as an attempt"


def test_what_cannot_be_removed_is_named_and_the_rest_goes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    nights(store, *NIGHTS[:4])
    rename = Path.rename

    def busy(path: Path, target: Path) -> Path:
        if path == store.checkpoint(NIGHTS[0]):
            raise OSError(16, "Device or resource busy")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", busy)
    pruned = prune(store, kept(checkpoints=0))
    assert pruned.checkpoints == (NIGHTS[1],)
    [doubt] = pruned.in_doubt
    assert doubt.startswith(f"{store.checkpoint(NIGHTS[0])} cannot be removed: [Errno 16]")
    assert checkpoint_ids(store) == [NIGHTS[0], *NIGHTS[2:4]]


def test_an_empty_store_has_nothing_to_remove(store: Store) -> None:
    assert not prune(store, RetentionSettings())
