"""Whole nights: the table, the manifest, what a second night costs, and what one bad repository does."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed_assets.records import SNIPPET_SCHEMA
from embed_assets.settings import RepositorySettings, Settings
from embed_assets.snippets.collect import SnippetsError, collect_snippets, deduplicated, read_manifest, table_digest
from embed_assets.snippets.parse import PARSER_CRASHED, Blob, Parsed
from embed_assets.snippets.repositories import open_source
from embed_assets.snippets.tree import snippets_at
from embed_assets.store import Store
from tests.snippets.made_repositories import DAY, FIRST_COMMIT, commit, make_repository, run_git
from tests.snippets.test_secrets import SECRETS


def settings_for(*sources: Path | str) -> Settings:
    return Settings(
        repositories=tuple(RepositorySettings.model_validate({"source": str(source)}) for source in sources)
    )


def test_a_night_writes_the_table_and_its_manifest(shop: Path, store: Store) -> None:
    manifest = collect_snippets(settings_for(shop), store)
    table = pl.read_parquet(store.snippets)
    assert dict(table.schema) == dict(SNIPPET_SCHEMA)
    assert table.select("repository", "path", "name", "doc", "start_line").rows() == [
        ("shop", "shop/cart.py", "total", "Adds up the cart.", 1),
        ("shop", "shop/tax.py", "tax", "", 1),
    ]
    assert (manifest.snippets, manifest.documented, manifest.by_language) == (2, 1, {"python": 2})
    assert manifest.digest == table_digest(table)
    assert read_manifest(store) == manifest


def test_a_second_night_parses_only_what_changed(shop: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = collect_snippets(settings_for(shop), store)
    assert first.repositories["shop"].parsed_files == 2
    again = collect_snippets(settings_for(shop), store)
    assert again.repositories["shop"].parsed_files == 0
    assert again.digest == first.digest
    commit(shop, {"shop/tax.py": "def tax(x):\n    return x * 2\n"}, "Double", at=FIRST_COMMIT + 5 * DAY)
    changed = collect_snippets(settings_for(shop), store)
    assert changed.repositories["shop"].parsed_files == 1
    assert changed.digest != first.digest


def test_old_revisions_show_the_tree_as_it_was(shop: Path, store: Store) -> None:
    with open_source(RepositorySettings(source=str(shop)), store) as source:
        now, _ = snippets_at(source, store)
        before, counts = snippets_at(source, store, "HEAD~1")
    assert before["definition_id"].to_list() == now["definition_id"].to_list()
    assert before["code"].to_list()[0] == "def total(cart):\n    return sum(cart)"
    assert counts.commit != source.head


def test_duplicates_keep_the_first_by_repository_path_and_line(tmp_path: Path, store: Store) -> None:
    same = "def f():\n    return 1\n"
    files = {"b.py": same, "a.py": "x = 1\n\n" + same.replace("    ", "\t")}
    manifest = collect_snippets(
        settings_for(make_repository(tmp_path / "two", files), make_repository(tmp_path / "one", files)), store
    )
    assert pl.read_parquet(store.snippets).select("repository", "path").rows() == [("one", "a.py")]
    assert manifest.duplicates == 3


ROWS = st.lists(
    st.tuples(st.sampled_from("rs"), st.sampled_from("pq"), st.integers(1, 3), st.integers(0, 4)), max_size=12
)


@given(rows=ROWS, seed=st.randoms())
def test_deduplication_is_complete_stable_and_independent_of_order(
    rows: list[tuple[str, str, int, int]], seed: object
) -> None:
    def frame(chosen: list[tuple[str, str, int, int]]) -> pl.DataFrame:
        columns: dict[str, list[Any]] = {name: [""] * len(chosen) for name in SNIPPET_SCHEMA} | {
            "is_test": [False] * len(chosen),
            "parts": [[]] * len(chosen),
        }
        columns |= {"start_line": [row[2] for row in chosen], "end_line": [row[2] for row in chosen]}
        columns |= {"repository": [row[0] for row in chosen], "path": [row[1] for row in chosen]}
        columns |= {"snippet_id": [str(row[3]) for row in chosen], "definition_id": [str(row) for row in chosen]}
        return pl.DataFrame(columns, schema=dict(SNIPPET_SCHEMA))

    shuffled = list(rows)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    unique, duplicates = deduplicated(frame(rows))
    assert unique["snippet_id"].n_unique() == unique.height == len({row[3] for row in rows})
    assert duplicates == len(rows) - unique.height
    assert unique.equals(deduplicated(frame(shuffled))[0])
    assert deduplicated(unique)[1] == 0
    for row in unique.iter_rows(named=True):
        same = [other[:3] for other in rows if str(other[3]) == row["snippet_id"]]
        assert (row["repository"], row["path"], row["start_line"]) == min(same)


def test_one_bad_repository_does_not_lose_the_night(shop: Path, store: Store, tmp_path: Path) -> None:
    manifest = collect_snippets(settings_for(tmp_path / "missing", shop), store)
    assert list(manifest.failed) == ["missing"]
    assert "no such directory" in manifest.failed["missing"]
    assert manifest.snippets == 2


def test_all_bad_repositories_are_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SnippetsError, match=r"a: .*no such directory.* b: "):
        collect_snippets(settings_for(tmp_path / "a", tmp_path / "b"), store)
    assert not store.snippets.exists()


def test_no_repository_at_all(store: Store) -> None:
    with pytest.raises(SnippetsError, match="embed-assets init"):
        collect_snippets(Settings(), store)


def test_a_tree_of_unknown_languages_says_which_are_known(store: Store, tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "prose", {"README.md": "# Hello\n", "a.hs": "main = print 1\n"})
    with pytest.raises(
        SnippetsError, match=r"no definition in 0 files \(left out: unknown_language 2\); known languages are python"
    ):
        collect_snippets(settings_for(repository), store)


def test_what_never_enters_is_counted_by_reason(tmp_path: Path, store: Store) -> None:
    files: dict[str, str | bytes | None] = {
        "a.py": "def a():\n    return 1\n",
        "vendor/b.py": "def b(): pass\n",
        "c.py": "# @generated\ndef c(): pass\n",
        "d.py": b"\0\1",
        "e.py": "",
        "f.js": "var x=1;" * 1_000,
        "g.py": "version https://git-lfs.github.com/spec/v1\n",
        "h.txt": "text",
        "i.py": "def i(): pass\n" * 80_000,
        "j.gen.py": "def j(): pass\n",
        ".gitattributes": "*.gen.py linguist-generated\n",
        "k.py": f"def k():\n    return {SECRETS['github']!r}\n",
    }
    manifest = collect_snippets(settings_for(make_repository(tmp_path / "all", files)), store)
    assert dict(manifest.dropped) == {
        "vendored": 1, "generated": 2, "binary": 1, "empty": 1, "minified": 1, "lfs_pointer": 1, "oversized": 1,
        "unknown_language": 2, "secret": 1,
    }  # fmt: skip
    assert pl.read_parquet(store.snippets)["name"].to_list() == ["a"]


def test_seeded_secrets_and_addresses_are_in_no_file_under_the_data_directory(tmp_path: Path, store: Store) -> None:
    leaky = {f"{kind}.py": f"def {kind}_f():\n    return {secret!r}\n" for kind, secret in SECRETS.items()}
    honest = {"honest.py": 'def honest():\n    """By ada@engine.org."""\n    return 1\n'}
    repository = make_repository(tmp_path / "leaky", leaky | honest)
    manifest = collect_snippets(settings_for(repository), store)
    assert manifest.dropped["secret"] == len(SECRETS)
    pl.read_parquet(store.snippets).write_ndjson(
        store.root / "plain.jsonl"
    )  # Parquet is compressed: read it as text too.
    stored = b"".join(path.read_bytes() for path in store.root.rglob("*") if path.is_file())
    assert b"honest" in stored
    for secret in (*SECRETS.values(), "ada@engine.org"):
        assert secret.encode() not in stored


def test_include_and_exclude_hold_at_every_revision(shop: Path, store: Store) -> None:
    chosen = RepositorySettings(source=str(shop), include=("shop/**",), exclude=("tax.py",))
    with open_source(chosen, store) as source:
        for revision in ("", "HEAD~1"):
            table, counts = snippets_at(source, store, revision)
            assert table["path"].to_list() == ["shop/cart.py"]
            assert counts.dropped == {"excluded": 1}


def test_an_installed_package_gives_snippets(store: Store) -> None:
    manifest = collect_snippets(settings_for("package:datasketch"), store)
    assert manifest.by_language["python"] > 100
    assert manifest.repositories["datasketch"].documented > 20


def test_a_missing_object_loses_its_repository_and_no_other(tmp_path: Path, shop: Path, store: Store) -> None:
    broken = make_repository(tmp_path / "broken", {"a.py": "def a():\n    return 1\n"})
    blob_id = run_git(broken, "rev-parse", "HEAD:a.py")
    (broken / ".git" / "objects" / blob_id[:2] / blob_id[2:]).unlink()
    manifest = collect_snippets(settings_for(broken, shop), store)
    assert blob_id in manifest.failed["broken"]
    assert "git fetch --refetch" in manifest.failed["broken"]
    assert list(manifest.repositories) == ["shop"]
    assert manifest.snippets == 2


def test_a_missing_object_that_nobody_needs_is_not_missed(tmp_path: Path, store: Store) -> None:
    """Clones may leave out large files: `git clone --filter=blob:limit=1m`."""
    lean = make_repository(tmp_path / "lean", {"a.py": "def a():\n    return 1\n", "large.bin": b"\0\1"})
    blob_id = run_git(lean, "rev-parse", "HEAD:large.bin")
    (lean / ".git" / "objects" / blob_id[:2] / blob_id[2:]).unlink()
    manifest = collect_snippets(settings_for(lean), store)
    assert (manifest.snippets, manifest.failed) == (1, {})


def test_a_crash_is_told_and_tried_again_the_next_night(
    shop: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crashing(blobs: Iterable[Blob], notices: list[str]) -> Iterator[tuple[Blob, Parsed]]:
        notices.append("the parser crashed")
        yield from ((blob, Parsed(reason=PARSER_CRASHED)) for blob in blobs)

    with monkeypatch.context() as patched:
        patched.setattr("embed_assets.snippets.tree.parse_all", crashing)
        with pytest.raises(SnippetsError, match=r"parser_crashed 2"):
            collect_snippets(settings_for(shop), store)
    assert collect_snippets(settings_for(shop), store).snippets == 2
