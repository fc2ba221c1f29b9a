"""Sets made elsewhere: measured beside our own, never with anything in them that is learnt."""

import json
from pathlib import Path

import pytest

from embed_assets.evaluation.benchmark import read_benchmark
from embed_assets.evaluation.tasks import external_tasks
from embed_assets.pairs.build import build_pairs
from embed_assets.pairs.external import LEAST_QUERIES, read_external
from embed_assets.pairs.manifest import PairsError
from embed_assets.pairs.separation import Sketches
from embed_assets.pairs.sources import Proposal
from embed_assets.store import Store
from tests.pairs.shop import Shop, settings_for
from tests.pairs.test_separation import a_function, a_proposal, long_code
from tests.pairs.written_history import WrittenHistory

QUERIES = LEAST_QUERIES + 5


def query(number: int) -> str:
    return f"where is part{number} of the gear{number * 7} kept{number * 13}"


def a_set(folder: Path, queries: int = QUERIES) -> Path:
    """As many documents as queries; the n-th answers the n-th."""
    folder.mkdir(parents=True)
    rows = range(queries)
    lines = {
        "corpus.jsonl": [{"_id": f"d{n}", "title": "", "text": long_code(f"part{n}")} for n in rows],
        "queries.jsonl": [{"_id": f"q{n}", "text": query(n)} for n in rows],
    }
    for name, documents in lines.items():
        (folder / name).write_text("".join(json.dumps(document) + "\n" for document in documents))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in rows))
    return folder


def asked(folder: Path, *training: Proposal) -> set[str]:
    return set(read_external(folder, training, Sketches()).queries["query_id"].to_list())


def test_what_resembles_the_training_leaves_the_set(tmp_path: Path) -> None:
    folder = a_set(tmp_path / "gears")
    everything = {f"q{n}" for n in range(QUERIES)}
    stranger = a_function("stranger", long_code("stranger"))
    assert asked(folder, a_proposal("train", "parse one header", stranger)) == everything
    assert asked(folder, a_proposal("validation", f"{query(3)} now", stranger)) == everything - {"q3"}
    headless = a_function("part5", long_code("part5").partition("\n")[2])
    assert asked(folder, a_proposal("train", "parse one header", headless)) == everything - {"q5"}
    copy = a_function("copy", long_code("part4", extra="    value += 1\n"))
    assert asked(folder, a_proposal("train", "parse one header", copy)) == everything - {"q4"}


def test_a_set_that_says_nothing_and_a_folder_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match=r"3 of 3 queries are left .* at least 20"):
        read_external(a_set(tmp_path / "small", 3), [], Sketches())
    with pytest.raises(PairsError, match=r"external set .*absent: .*corpus\.jsonl cannot be read"):
        read_external(tmp_path / "absent", [], Sketches())


def test_a_guard_that_the_gate_would_refuse_every_night_is_refused_at_once(
    written: WrittenHistory, store: Store, tmp_path: Path
) -> None:
    Shop(written).go_on(60)
    settings = settings_for(written.path, guard_set=str(a_set(tmp_path / "wheels", 25)))
    assert settings.gate.minimum_queries == 30
    with pytest.raises(PairsError, match=r"guard set .*wheels: 25 of 25 queries are left .* at least 30"):
        build_pairs(settings, store)


def test_a_night_freezes_and_links_the_sets_and_forgets_those_no_longer_named(
    written: WrittenHistory, store: Store, tmp_path: Path
) -> None:
    Shop(written).go_on(60)
    gears, wheels = a_set(tmp_path / "gears"), a_set(tmp_path / "wheels", 60)
    first = build_pairs(settings_for(written.path, external_sets=[str(gears), str(wheels)]), store)
    assert [link.name for link in store.external_benchmarks] == ["external-gears", "external-wheels"]
    found = read_benchmark(store.external_benchmark("wheels"))
    assert found.queries.height == found.corpus.height == 60
    assert [task.name for task in external_tasks(found)] == ["external_wheels"]
    again = build_pairs(settings_for(written.path, external_sets=[str(gears)], guard_set=str(wheels)), store)
    assert [link.name for link in store.external_benchmarks] == ["external-gears"]
    assert again.guard_queries == 60
    assert (again.pairs_digest, again.benchmark_digest) == (first.pairs_digest, first.benchmark_digest)


def test_two_sets_of_one_name_are_refused(written: WrittenHistory, store: Store, tmp_path: Path) -> None:
    Shop(written).go_on(60)
    sets = [str(a_set(tmp_path / "a" / "gears")), str(a_set(tmp_path / "b" / "gears"))]
    with pytest.raises(PairsError, match="two folders are called 'gears'"):
        build_pairs(settings_for(written.path, external_sets=sets), store)
