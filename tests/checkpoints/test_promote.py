"""Promotion and rollback on a real data directory: every way in, every crash, every damage."""

import errno
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embed_assets.checkpoints import promote as promote_module
from embed_assets.checkpoints.live import (
    BASE,
    LiveModel,
    RollbackError,
    checkpoint_ids,
    lineage,
    live_model,
    rollback,
)
from embed_assets.checkpoints.manifest import CheckpointCorruptError, verify
from embed_assets.checkpoints.promote import PromotionError, PromotionRefusedError, promote
from embed_assets.checkpoints.verdict import judge
from embed_assets.files import StoreError, read_json, read_lines, write_json
from embed_assets.records import RecallReport
from embed_assets.settings import GateSettings
from embed_assets.store import Store
from tests.evaluation.made_reports import good_report, one_slice, ranks_of
from tests.evaluation.made_store import (
    FIRST,
    SECOND,
    fitting,
    make_benchmark,
    set_benchmarks,
    write_candidate,
    write_report,
)

POLICY = GateSettings()
THIRD = "20261125-020000-cccccccc"


def prepare(store: Store, name: str, **changes: Any) -> RecallReport:
    """A candidate that passes the gate against what is live."""
    if not store.current_benchmark.exists():
        set_benchmarks(store, make_benchmark("team", 20), make_benchmark("library", 20))
    write_candidate(store, name, weights=f"weights of {name}")
    live = live_model(store)
    against: dict[str, Any] = {"live_id": live.checkpoint_id, "live_digest": live.digest} if live else {}
    return write_report(store, name, fitting(store, name, good_report().slices, **{**against, **changes}))


def live_id(store: Store) -> str:
    live = live_model(store)
    return live.checkpoint_id if live else BASE


def test_a_good_candidate_becomes_a_whole_checkpoint(store: Store) -> None:
    report = prepare(store, FIRST)
    checkpoint = promote(store, None, POLICY)
    assert (checkpoint.checkpoint_id, checkpoint.replaced) == (FIRST, BASE)
    assert live_model(store) == LiveModel(
        checkpoint_id=FIRST, path=store.checkpoint(FIRST), digest=report.candidate_digest
    )
    assert store.checkpoint_latest.readlink() == Path(f"checkpoints/{FIRST}")
    manifest = verify(store.checkpoint(FIRST))
    assert manifest.report_digest == report.digest
    assert set(manifest.files) == {
        "config.json", "model.safetensors", "1_Pooling/config.json", "adapter/adapter_model.safetensors",
        "golden.safetensors", "report.json", "training.json",
    }  # fmt: skip
    (event,) = read_lines(store.history)
    assert (event["event"], event["id"], event["from"]) == ("promotion", FIRST, BASE)
    assert event["report_digest"] == report.digest
    assert read_json(store.candidate(FIRST) / "verdict.json")["promote"] is True


def test_what_happens_to_the_candidate_later_does_not_reach_the_checkpoint(store: Store) -> None:
    prepare(store, FIRST)
    promote(store, FIRST, POLICY)
    (store.candidate(FIRST) / "model" / "model.safetensors").write_text("spoilt")
    assert verify(store.checkpoint(FIRST)).checkpoint_id == FIRST


def test_promoting_what_is_live_changes_nothing(store: Store) -> None:
    prepare(store, FIRST)
    first = promote(store, FIRST, POLICY)
    before = store.checkpoint(FIRST).stat().st_mtime_ns
    assert promote(store, FIRST, POLICY) == first
    assert store.checkpoint(FIRST).stat().st_mtime_ns == before
    assert len(read_lines(store.history)) == 1


def refused(store: Store, name: str = FIRST) -> str:
    """Why; asserts that the pointer did not move."""
    before = live_id(store)
    with pytest.raises(PromotionRefusedError) as caught:
        promote(store, name, POLICY)
    assert live_id(store) == before
    assert not store.checkpoint(name).exists()
    assert caught.value.reasons
    return str(caught.value)


def test_a_candidate_without_a_report_is_refused(store: Store) -> None:
    set_benchmarks(store, make_benchmark("team", 20), make_benchmark("library", 20))
    write_candidate(store, FIRST, weights="w")
    assert "has no report" in refused(store)


def test_a_worse_candidate_is_refused_on_every_way_in(store: Store) -> None:
    """As trained on shuffled positives. A forged verdict on disk changes nothing."""
    prepare(store, FIRST)
    ranks, guard = ranks_of(300, 0), ranks_of(300, 1)
    worse = [rank + 5 for rank in ranks]
    parts = (one_slice("docstring", ranks, worse), one_slice("guard", guard, [rank + 5 for rank in guard]))
    write_report(store, FIRST, fitting(store, FIRST, parts))
    assert not judge(store, POLICY, FIRST).promote
    for _ in range(2):
        said = refused(store)
        assert "gain -" in said
        assert "guard queries" in said
        write_json(store.candidate(FIRST) / "verdict.json", {"promote": True, "reasons": []})


def test_an_altered_report_is_refused(store: Store) -> None:
    prepare(store, FIRST)
    path = store.candidate(FIRST) / "report.json"
    document = read_json(path)
    document["attempt"] = 1
    document["slices"][0]["ranks"]["candidate"][0] = [1]
    document["slices"][0]["ranks"]["live"][0] = [500]
    write_json(path, document)
    assert "was altered" in refused(store)
    path.write_text("{}")
    assert "not a recall report" in refused(store)
    path.write_text("{")
    assert "damaged" in refused(store)


def test_an_impossible_report_is_refused(store: Store) -> None:
    prepare(store, FIRST)
    part = good_report().slices[0]
    ranks = {**part.ranks, "candidate": ((0,), *part.ranks["candidate"][1:])}
    bad = one_slice("docstring", [1] * 300, [1] * 300, ranks=ranks)
    write_report(store, FIRST, fitting(store, FIRST, (bad, good_report().slices[1])))
    assert "allowed: ascending whole numbers" in refused(store)


def test_a_report_of_another_candidate_is_refused(store: Store) -> None:
    report = prepare(store, FIRST)
    prepare(store, SECOND)
    write_json(store.candidate(SECOND) / "report.json", report.to_json())
    assert f"is about candidate {FIRST}" in refused(store, SECOND)


def test_swapped_weights_are_refused(store: Store) -> None:
    prepare(store, FIRST)
    (store.candidate(FIRST) / "model" / "model.safetensors").write_text("other weights")
    assert "not those that were evaluated" in refused(store)


def test_linked_weights_are_refused(store: Store, tmp_path: Path) -> None:
    prepare(store, FIRST)
    weights = store.candidate(FIRST) / "model" / "model.safetensors"
    shutil.move(weights, tmp_path / "weights")
    weights.symlink_to(tmp_path / "weights")
    assert "symbolic link" in refused(store)


def test_a_report_against_another_live_model_is_stale(store: Store) -> None:
    prepare(store, FIRST)
    prepare(store, SECOND)
    promote(store, FIRST, POLICY)
    said = refused(store, SECOND)
    assert f"compares with live model base, live is {FIRST} now" in said
    assert "embed-assets evaluate" in said


def test_a_report_on_another_benchmark_or_guard_is_stale(store: Store) -> None:
    prepare(store, FIRST)
    set_benchmarks(store, make_benchmark("team", 21))
    assert "made on benchmark" in refused(store)
    set_benchmarks(store, make_benchmark("team", 20), make_benchmark("library", 21))
    assert "made on guard" in refused(store)
    store.guard_benchmark.unlink()
    assert "current is missing" in refused(store)


def test_a_report_without_a_guard_is_refused(store: Store) -> None:
    prepare(store, FIRST)
    store.guard_benchmark.unlink()
    write_report(store, FIRST, fitting(store, FIRST, good_report().slices[:1], guard_digest=""))
    assert "guard" in refused(store)


def test_a_leak_is_refused(store: Store) -> None:
    prepare(store, FIRST, leaks=("the candidate was trained on 2 of the queries asked here",))
    assert "trained on 2 of the queries" in refused(store)


def test_an_incomplete_candidate_is_refused(store: Store) -> None:
    prepare(store, FIRST)
    (store.candidate(FIRST) / "golden.safetensors").unlink()
    assert "golden.safetensors missing" in refused(store)


def test_unknown_candidates_are_errors(store: Store) -> None:
    with pytest.raises(StoreError, match="no candidate was trained yet"):
        promote(store, None, POLICY)
    with pytest.raises(StoreError, match="there is no candidate 'nobody'"):
        promote(store, "nobody", POLICY)
    with pytest.raises(StoreError, match="is no id"):
        promote(store, "../../etc", POLICY)


def test_a_checkpoint_that_was_replaced_comes_back_by_rollback_only(store: Store) -> None:
    prepare(store, FIRST)
    promote(store, FIRST, POLICY)
    rollback(store)
    with pytest.raises(PromotionRefusedError, match=f"rollback --to {FIRST}"):
        promote(store, FIRST, POLICY)
    assert live_id(store) == BASE
    assert rollback(store, FIRST).checkpoint_id == FIRST
    assert live_id(store) == FIRST


class InjectedError(Exception):
    """Stands for the power cut."""


STEPS = ("copyfile", "write_manifest", "new_directory", "verify", "write_verdict", "point_link", "record")


def fail_at(monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool, error: BaseException) -> None:
    where: Any = shutil if step == "copyfile" else promote_module
    real: Callable[..., Any] = getattr(where, step)

    def fail(*arguments: Any, **options: Any) -> Any:
        if after:
            real(*arguments, **options)
        raise error

    monkeypatch.setattr(where, step, fail)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_leaves_the_old_or_the_new_state(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    prepare(store, FIRST)
    promote(store, FIRST, POLICY)
    prepare(store, SECOND)
    with monkeypatch.context() as patch:
        fail_at(patch, step, after=after, error=InjectedError())
        with pytest.raises(InjectedError):
            promote(store, SECOND, POLICY)
    moved = step == "record" or (step == "point_link" and after)
    assert live_id(store) == (SECOND if moved else FIRST)
    for name in checkpoint_ids(store):
        verify(store.checkpoint(name))
    assert not list(store.checkpoints.glob(".*"))
    assert promote(store, SECOND, POLICY).checkpoint_id == SECOND  # and the next try ends it
    assert live_id(store) == SECOND
    assert [event["id"] for event in read_lines(store.history)] == [FIRST, SECOND]
    assert rollback(store).checkpoint_id == FIRST


def test_a_process_that_dies_leaves_no_lock_and_no_half_checkpoint(store: Store) -> None:
    prepare(store, FIRST)
    child = multiprocessing.get_context("fork").Process(target=_die_while_copying, args=(store,))
    child.start()
    child.join(30)
    assert child.exitcode == 9
    assert checkpoint_ids(store) == []
    assert promote(store, FIRST, POLICY).checkpoint_id == FIRST


def _die_while_copying(store: Store) -> None:
    setattr(promote_module, "write_manifest", lambda *_, **__: os._exit(9))  # noqa: B010
    promote(store, FIRST, POLICY)


@pytest.mark.parametrize("step", ["copyfile", "point_link", "record"])
def test_a_full_disk_is_one_clear_error(store: Store, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    prepare(store, FIRST)
    with monkeypatch.context() as patch:
        fail_at(patch, step, after=False, error=OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(PromotionError, match="the disk is full"):
            promote(store, FIRST, POLICY)
    assert promote(store, FIRST, POLICY).checkpoint_id == FIRST


def test_too_little_space_is_seen_before_anything_is_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(store, FIRST)
    usage = shutil.disk_usage(store.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1))
    with pytest.raises(PromotionError, match="MiB free, the checkpoint needs"):
        promote(store, FIRST, POLICY)
    assert checkpoint_ids(store) == []


def test_promotions_at_the_same_time_take_turns(store: Store) -> None:
    """Two candidates judged against the same live model: one wins, the other's report is stale by then."""
    prepare(store, FIRST)
    prepare(store, SECOND)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_try, args=(store, name, results)) for name in (FIRST, SECOND)]
    for child in children:
        child.start()
    outcomes = sorted(results.get(timeout=30) for _ in children)
    for child in children:
        child.join(30)
    assert [kind for kind, _ in outcomes] == ["promoted", "refused"]
    assert live_id(store) == outcomes[0][1]
    assert len(read_lines(store.history)) == 1


def _try(store: Store, name: str, results: Any) -> None:
    try:
        results.put(("promoted", promote(store, name, POLICY).checkpoint_id))
    except PromotionRefusedError:
        results.put(("refused", name))


def promoted(store: Store, *names: str) -> None:
    for name in names:
        prepare(store, name)
        promote(store, name, POLICY)


def test_rollback_goes_back_one_by_one_to_the_base(store: Store) -> None:
    promoted(store, FIRST, SECOND, THIRD)
    assert [rollback(store).checkpoint_id for _ in range(3)] == [SECOND, FIRST, BASE]
    assert live_model(store) is None
    assert not store.checkpoint_latest.is_symlink()
    with pytest.raises(RollbackError, match="nothing came before"):
        rollback(store)
    assert [event["event"] for event in read_lines(store.history)] == ["promotion"] * 3 + ["rollback"] * 3


def test_rollback_after_a_new_promotion_skips_what_was_rolled_back(store: Store) -> None:
    promoted(store, FIRST, SECOND)
    rollback(store)
    promoted(store, THIRD)
    assert rollback(store).checkpoint_id == FIRST


def test_rollback_to_a_named_checkpoint(store: Store) -> None:
    promoted(store, FIRST, SECOND)
    checkpoint = rollback(store, FIRST, reason="bad answers")
    assert (checkpoint.checkpoint_id, checkpoint.replaced, checkpoint.path) == (FIRST, SECOND, store.checkpoint(FIRST))
    assert read_lines(store.history)[-1]["reason"] == "bad answers"
    assert rollback(store, FIRST).checkpoint_id == FIRST  # again: nothing changes
    assert len(read_lines(store.history)) == 3


def test_an_unknown_checkpoint_is_refused_with_those_there_are(store: Store) -> None:
    promoted(store, FIRST)
    for wrong in ("nobody", "", ".lock", "../candidates"):
        with pytest.raises(RollbackError, match=f"Known are: base, {FIRST}"):
            rollback(store, wrong)
    assert live_id(store) == FIRST


def test_a_damaged_checkpoint_is_not_rolled_back_to(store: Store) -> None:
    promoted(store, FIRST, SECOND)
    (store.checkpoint(FIRST) / "model.safetensors").write_text("rot")
    with pytest.raises(CheckpointCorruptError, match=r"model\.safetensors was changed"):
        rollback(store)
    assert live_id(store) == SECOND


def test_a_pointer_that_dangles_or_leads_out_is_an_error_and_rollback_mends_it(store: Store, tmp_path: Path) -> None:
    promoted(store, FIRST, SECOND)
    shutil.rmtree(store.checkpoint(SECOND))
    with pytest.raises(StoreError, match="does not exist"):
        live_model(store)
    assert rollback(store).checkpoint_id == FIRST
    for target in (str(tmp_path), "../candidates", "checkpoints/../.."):
        store.checkpoint_latest.unlink()
        store.checkpoint_latest.symlink_to(target)
        with pytest.raises(StoreError, match="outside"):
            live_model(store)
    assert rollback(store, FIRST).checkpoint_id == FIRST
    store.checkpoint_latest.unlink()
    store.checkpoint_latest.mkdir()
    with pytest.raises(StoreError, match="is no symbolic link"):
        live_model(store)


def test_lineage_repairs_a_history_with_a_gap() -> None:
    def event(old: str, new: str) -> dict[str, Any]:
        return {"from": old, "id": new}

    assert lineage([]) == [BASE]
    assert lineage([event(BASE, "a"), event("b", "c")]) == [BASE, "a", "b", "c"]
    assert lineage([event(BASE, "a"), event("a", "b"), event("b", BASE), event(BASE, "c")]) == [BASE, "c"]


def test_a_last_line_of_the_history_cut_off_by_a_crash_is_no_obstacle(store: Store) -> None:
    promoted(store, FIRST)
    with store.history.open("a", encoding="utf-8") as file:
        file.write('{"event": "promo')
    promoted(store, SECOND)
    assert live_id(store) == SECOND
    assert rollback(store).checkpoint_id == FIRST


def test_none_of_it_imports_torch() -> None:
    import subprocess

    modules = "promote, live, manifest, verdict"
    code = f"from embed_assets.checkpoints import {modules}; from embed_assets.evaluation import gate, job, table, plot"
    check = (
        f"{code}; import sys; sys.exit(bool({{'torch', 'transformers', 'matplotlib', 'dagster'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False, timeout=60).returncode == 0
