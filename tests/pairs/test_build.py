"""Whole nights over a real repository: what is written, what stays, what moves, what is said when nothing can be."""

import json
from pathlib import Path

import git
import polars as pl
import pytest

from embed_assets.evaluation.benchmark import read_benchmark
from embed_assets.files import file_sha256, read_json
from embed_assets.pairs import reading
from embed_assets.pairs.build import build_pairs
from embed_assets.pairs.leakage import find_leaks, lineage_leaks
from embed_assets.pairs.manifest import PairsError, PairsManifest, learnt_queries, read_manifest
from embed_assets.records import NEGATIVE_SCHEMA, PAIR_SCHEMA, query_digest
from embed_assets.settings import Settings
from embed_assets.store import Store
from tests.checkpoints.made_start import write_start
from tests.pairs.shop import MODULES, TOPICS, VERBS, Shop, settings_for
from tests.pairs.written_history import WrittenHistory, function

DOC = "Weighs every parcel twice before the courier comes to fetch them all."

pytestmark = pytest.mark.usefixtures("small_guard")


@pytest.fixture
def shop(written: WrittenHistory) -> Shop:
    return Shop(written)


def test_a_night_writes_pairs_benchmark_guard_and_manifest(shop: Shop, store: Store) -> None:
    shop.go_on(120)
    manifest = build_pairs(settings_for(shop.written.path), store)
    pairs = pl.read_parquet(store.pairs)
    benchmark, general = read_benchmark(store.current_benchmark), read_benchmark(store.guard_benchmark)
    assert dict(pairs.schema) == pl.Schema(PAIR_SCHEMA)
    assert set(pairs["source"].unique()) == {"docstring", "commit"}
    assert set(pairs["split"].unique()) == {"train", "validation", "test"}
    assert manifest.rows == pairs.height == sum(manifest.by_split.values())
    assert (manifest.benchmark_digest, manifest.guard_digest) == (benchmark.digest, general.digest)
    assert benchmark.corpus.height == manifest.corpus == 6 * MODULES
    assert general.queries.height == 200 and general.corpus.height == 400
    assert read_manifest(store) == manifest == PairsManifest.from_json(json.loads(json.dumps(manifest.to_json())))
    copies = read_json(store.pairs_copies)
    assert find_leaks(pairs, benchmark, copies) == [] and find_leaks(pairs, general, copies) == []
    assert manifest.examples and manifest.dropped["commit_initial"] == 1
    assert any("by themselves they cannot tell a gain" in note for note in manifest.notes)


def test_a_smaller_guard_asks_the_first_of_the_same_queries(shop: Shop, store: Store) -> None:
    shop.go_on(40)
    build_pairs(settings_for(shop.written.path, guard_queries=220), store)
    larger = read_benchmark(store.guard_benchmark)
    build_pairs(settings_for(shop.written.path, guard_queries=200), store)
    smaller = read_benchmark(store.guard_benchmark)
    assert (larger.queries.height, larger.corpus.height) == (220, 440)
    assert (smaller.queries.height, smaller.corpus.height) == (200, 400)
    assert set(smaller.queries["query_id"]) < set(larger.queries["query_id"])


def test_training_learns_from_the_past_and_the_test_asks_about_the_future(shop: Shop, store: Store) -> None:
    shop.go_on(120)
    manifest = build_pairs(settings_for(shop.written.path), store)
    commits = pl.read_parquet(store.pairs).filter(pl.col("source") == "commit")
    assert commits.filter(pl.col("split") == "test")["written_at"].min() > manifest.cutoff  # type: ignore[operator]
    assert commits.filter(pl.col("split") != "test")["written_at"].max() <= manifest.cutoff  # type: ignore[operator]
    assert manifest.test_queries["commit"] == 20
    benchmark = read_benchmark(store.current_benchmark)
    assert benchmark.cutoff == manifest.cutoff
    # The corpus is the tree at T: what the last commit wrote is not in it yet.
    name = f"{VERBS[4]}_{TOPICS[0]}"
    text = benchmark.corpus.filter(pl.col("name") == name)["text"].item()
    assert shop.state[name] == 2 and f"{VERBS[4]}_count > 1]" in text


def test_the_json_lines_have_the_same_columns_in_every_row(shop: Shop, store: Store) -> None:
    shop.go_on(60)
    build_pairs(settings_for(shop.written.path, hard_negatives=3), store)
    rows = [json.loads(line) for line in (store.pairs_dir / "train.jsonl").read_text().splitlines()]
    assert {tuple(row) for row in rows} == {("query", "positive", "negative_1", "negative_2", "negative_3")}
    assert all(len({row["positive"], *(row[f"negative_{n}"] for n in (1, 2, 3))}) == 4 for row in rows)
    test = [json.loads(line) for line in (store.pairs_dir / "test.jsonl").read_text().splitlines()]
    assert {tuple(row) for row in test} == {("query", "positive")}


def test_negatives_stand_beside_the_positive_and_nothing_judged_is_among_them(shop: Shop, store: Store) -> None:
    shop.go_on(120)
    build_pairs(settings_for(shop.written.path, hard_negatives=2), store)
    pairs = pl.read_parquet(store.pairs)
    learnt = pairs.filter(pl.col("split") != "test")
    judged = set(pairs.filter(pl.col("split") == "test")["positive"].to_list())
    found = 0
    for positive, negatives in learnt.select("positive", "hard_negatives").iter_rows():
        for negative in negatives:
            assert negative.split()[0] == positive.split()[0]
            assert negative != positive and negative not in judged
            found += 1
    assert found > learnt.height


def test_what_negatives_are_mined_among_holds_nothing_judged(shop: Shop, store: Store) -> None:
    shop.go_on(120)
    build_pairs(settings_for(shop.written.path), store)
    corpus = read_benchmark(store.current_benchmark).corpus
    judged = pl.read_parquet(store.pairs).filter(pl.col("split") == "test")
    minable = pl.read_parquet(store.pairs_negatives)
    assert dict(minable.schema) == dict(NEGATIVE_SCHEMA)
    assert not set(minable["snippet_id"]) & set(judged["snippet_id"])
    assert set(minable["text"]) < set(corpus["text"])


def test_a_night_with_nothing_new_changes_nothing(shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.go_on(60)
    settings = settings_for(shop.written.path)
    first = build_pairs(settings, store)
    monkeypatch.setattr(reading, "read_history", None)
    assert build_pairs(settings, store) == first


def test_a_few_new_commits_wait_and_teach_nothing_until_the_benchmark_is_renewed(shop: Shop, store: Store) -> None:
    shop.go_on(120)
    settings = settings_for(shop.written.path)
    first = build_pairs(settings, store)
    minable = file_sha256(store.pairs_negatives)
    shop.go_on(1)
    second = build_pairs(settings, store)
    assert file_sha256(store.pairs_negatives) == minable, "otherwise a night with nothing to learn would train"
    assert second.inputs_digest != first.inputs_digest
    assert (second.pairs_digest, second.benchmark_digest) == (first.pairs_digest, first.benchmark_digest)
    assert second.dropped["commit_waits"] == 1 and "1 newer commit queries wait" in " ".join(second.notes)
    shop.go_on(1)
    third = build_pairs(settings, store)
    assert third.cutoff > first.cutoff and third.benchmark_digest != first.benchmark_digest
    assert third.pairs_digest != first.pairs_digest and "commit_waits" not in third.dropped


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("lost", ["pairs_negatives", "pairs_rehearsal"])
def test_a_lost_or_damaged_table_beside_the_pairs_is_built_again(
    shop: Shop, store: Store, lost: str, *, damaged: bool
) -> None:
    """Or one that an earlier version did not write."""
    shop.go_on(60)
    settings = settings_for(shop.written.path)
    first = build_pairs(settings, store)
    table: Path = getattr(store, lost)
    before = table.read_bytes()
    table.unlink()
    if damaged:
        table.write_bytes(before[:-50])
    again = build_pairs(settings, store)
    assert table.read_bytes() == before, "planning goes by the file's digest: other bytes would train again"
    assert (again.pairs_digest, again.benchmark_digest, again.guard_digest) == (
        first.pairs_digest,
        first.benchmark_digest,
        first.guard_digest,
    )


def test_over_many_nights_nothing_learnt_is_ever_judged_on(shop: Shop, store: Store) -> None:
    settings = settings_for(shop.written.path)
    learnt: set[str] = set()
    cutoffs: list[int] = []
    benchmarks: set[str] = set()
    for _ in range(8):
        shop.go_on(18)
        manifest = build_pairs(settings, store)
        benchmark = read_benchmark(store.current_benchmark)
        assert lineage_leaks(benchmark, query_digests=learnt, cutoff=max(cutoffs, default=0)) == []
        assert learnt_queries(store) >= learnt
        assert lineage_leaks(benchmark, query_digests=learnt_queries(store), cutoff=0) == []
        pairs = pl.read_parquet(store.pairs)
        assert find_leaks(pairs, benchmark, read_json(store.pairs_copies)) == []
        learnt |= {query_digest(query) for query in pairs.filter(pl.col("split") == "train")["query"].to_list()}
        cutoffs.append(manifest.cutoff)
        benchmarks.add(manifest.benchmark_digest)
    assert cutoffs == sorted(cutoffs) and cutoffs[0] == 0
    assert len(set(cutoffs)) >= 3, "the cut-off moved on while the test side grew"
    assert {path.name for path in store.benchmarks.iterdir() if not path.is_symlink()} >= benchmarks
    assert [move["cutoff"] for move in read_json(store.splits)["moves"]] == list(dict.fromkeys(cutoffs))[1:]


def starting_from(settings: Settings, start: Path) -> Settings:
    return settings.model_copy(update={"training": settings.training.model_copy(update={"start_from": start})})


def test_what_a_warm_start_learnt_of_other_repositories_is_only_not_asked(
    shop: Shop, store: Store, tmp_path: Path
) -> None:
    shop.go_on(120)
    settings = settings_for(shop.written.path)
    first = build_pairs(settings, store)
    asked = read_benchmark(store.current_benchmark).queries["text"].to_list()
    start = write_start(tmp_path / "start", learnt=asked[:3], learnt_until={"bank": first.cutoff + 10**6})
    second = build_pairs(starting_from(settings, start), store)
    assert second.cutoff == first.cutoff
    assert second.dropped["test_learnt_before"] == 3
    benchmark = read_benchmark(store.current_benchmark)
    assert set(benchmark.queries["text"].to_list()) == set(asked[3:])
    assert learnt_queries(store) >= {query_digest(text) for text in asked[:3]}
    assert build_pairs(starting_from(settings, start), store) == second, "nothing changed"
    third = build_pairs(settings, store)
    assert third.inputs_digest == first.inputs_digest
    assert third.benchmark_digest == second.benchmark_digest, "what was learnt once is not asked again"


def test_no_cut_off_lies_before_that_of_a_warm_start_on_the_same_repository(
    shop: Shop, store: Store, tmp_path: Path
) -> None:
    """The team's cut-off is later as a rule: all its repositories together have the newest queries."""
    shop.go_on(120)
    settings = settings_for(shop.written.path)
    name = settings.repositories[0].name
    first = build_pairs(settings, store)
    tests = pl.read_parquet(store.pairs).filter(pl.col("split") == "test", pl.col("source") == "commit")
    times = sorted(tests["written_at"].unique().to_list())
    until = times[len(times) // 2]
    learnt = tests.filter(pl.col("written_at") <= until)["query"].unique().to_list()
    start = write_start(tmp_path / "start", learnt=learnt, learnt_until={name: until, "bank": until + 10**6})
    second = build_pairs(starting_from(settings, start), store)
    assert second.cutoff == until > first.cutoff
    pairs = pl.read_parquet(store.pairs).filter(pl.col("source") == "commit")
    assert pairs.filter(pl.col("split") == "test")["written_at"].min() > until
    benchmark = read_benchmark(store.current_benchmark)
    digests = {query_digest(text) for text in learnt}
    assert lineage_leaks(benchmark, query_digests=digests, cutoff=until) == []
    assert 0 < second.test_queries["commit"] < first.test_queries["commit"]

    fresh = Store(tmp_path / "fresh")
    assert build_pairs(starting_from(settings, start), fresh).cutoff == until, "on a first night too"


def test_a_package_has_no_past_and_is_divided_by_file(store: Store) -> None:
    manifest = build_pairs(settings_for("package:rich"), store)
    assert manifest.cutoff == 0
    assert set(manifest.by_source) == {"docstring"}
    assert set(manifest.by_split) == {"train", "validation", "test"}
    pairs = pl.read_parquet(store.pairs)
    by_side = pairs.group_by("group_id").agg(pl.col("split").n_unique())
    assert by_side["split"].max() == 1
    copies = read_json(store.pairs_copies)
    assert len(copies) == manifest.duplicates > 0
    assert set(copies.values()) <= set(read_benchmark(store.current_benchmark).corpus["document_id"].to_list())
    assert find_leaks(pairs, read_benchmark(store.current_benchmark), copies) == []


def test_the_newest_rows_are_kept_when_there_are_too_many(shop: Shop, store: Store) -> None:
    shop.go_on(120)
    everything = build_pairs(settings_for(shop.written.path), store)
    oldest = pl.read_parquet(store.pairs).filter(pl.col("split") == "train")["written_at"].to_list()
    few = build_pairs(settings_for(shop.written.path, max_pairs=10), store)
    newest = pl.read_parquet(store.pairs).filter(pl.col("split") == "train")["written_at"].to_list()
    assert few.by_split["train"] == 10 and few.dropped["above_max_pairs"] == everything.by_split["train"] - 10
    assert sorted(newest) == sorted(oldest)[-10:]
    assert few.benchmark_digest == everything.benchmark_digest


@pytest.mark.parametrize("damage", ["garbage", "fewer rows", "gone"])
def test_a_damaged_table_of_pairs_is_built_again(shop: Shop, store: Store, damage: str) -> None:
    shop.go_on(40)
    settings = settings_for(shop.written.path)
    first = build_pairs(settings, store)
    table = pl.read_parquet(store.pairs)
    if damage == "garbage":
        store.pairs.write_bytes(b"PAR1 and no more")
    elif damage == "fewer rows":
        table.head(table.height // 2).write_parquet(store.pairs)
    else:
        store.pairs.unlink()
    again = build_pairs(settings, store)
    assert pl.read_parquet(store.pairs).equals(table)
    assert again.pairs_digest == first.pairs_digest
    said = "a file of last night's pairs was damaged or altered: all were built again"
    assert (said in again.notes) is (damage != "gone")


def test_one_bad_repository_does_not_lose_the_night(shop: Shop, store: Store, tmp_path: Path) -> None:
    shop.go_on(20)
    manifest = build_pairs(settings_for(shop.written.path, tmp_path / "absent"), store)
    assert list(manifest.failed) == ["absent"]
    assert set(manifest.by_repository) == {"shop"}


def test_a_repository_that_breaks_off_while_it_is_read_is_named_and_tried_again(
    shop: Shop, store: Store, tmp_path: Path
) -> None:
    """A blob of an old version is missing, as in a partial clone: opening succeeds, reading the history does not."""
    shop.go_on(20)
    torn = WrittenHistory(tmp_path / "torn.git")
    for number in range(3):
        torn.commit(
            f"Weigh parcels in pounds {number}", {"parcel.py": function("weigh", f"value += {number}", doc=DOC)}
        )
    torn.write()
    blob = git.Repo(torn.path).git.rev_parse("main~1:parcel.py")
    missing = torn.path / "objects" / blob[:2] / blob[2:]
    missing.rename(tmp_path / "aside")
    settings = settings_for(shop.written.path, torn.path)

    manifest = build_pairs(settings, store)
    assert blob in manifest.failed["torn"] and "git fetch --refetch" in manifest.failed["torn"]
    assert set(manifest.by_repository) == {"shop"}
    (tmp_path / "aside").rename(missing)
    mended = build_pairs(settings, store)
    assert not mended.failed
    assert mended.corpus == manifest.corpus + 1

    only = settings_for(torn.path)
    missing.rename(tmp_path / "aside")
    with pytest.raises(PairsError, match=f"no repository can be read.*torn.*{blob}"):
        build_pairs(only, Store(tmp_path / "other"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(), "no repository is configured"),
        (settings_for("/absent/nowhere"), "no repository can be read"),
        (settings_for("package:rich", sources={"psychic": 1.0}), "unknown source 'psychic'; allowed: .*docstring"),
    ],
)
def test_mistakes_are_said_in_one_line(settings: Settings, message: str, store: Store) -> None:
    with pytest.raises(PairsError, match=message):
        build_pairs(settings, store)


def test_code_without_docs_and_history_says_what_would_help(written: WrittenHistory, store: Store) -> None:
    written.commit("Begin", {"a.py": "def one(value):\n    return value\n"})
    with pytest.raises(PairsError, match=r"no training pair in 1 functions, 0 of them documented.*queries_file"):
        build_pairs(settings_for(written.write()), store)
