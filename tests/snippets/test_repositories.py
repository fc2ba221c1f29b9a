"""Real repositories, real clones, and every way in which one cannot be read."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from embed_assets.settings import RepositorySettings
from embed_assets.snippets.entries import RepositoryError, blob_id_of
from embed_assets.snippets.git_source import GitSource
from embed_assets.snippets.package_source import PackageSource, standard_library
from embed_assets.snippets.repositories import open_source
from embed_assets.store import Store
from tests.snippets.made_repositories import DAY, FIRST_COMMIT, commit, make_repository, run_git


def opened(path: Path | str, store: Store, **settings: object) -> GitSource:
    source = open_source(RepositorySettings.model_validate({"source": str(path), **settings}), store)
    assert isinstance(source, GitSource)
    return source


def test_entries_name_every_file_with_its_blob_and_mode(shop: Path, store: Store) -> None:
    (shop / "link.py").symlink_to("shop/cart.py")
    commit(shop, {"größe.py": "x = 1\n"}, "More", at=FIRST_COMMIT + 2 * DAY)
    with opened(shop, store) as source:
        entries = {entry.path: entry for entry in source.entries()}
        assert sorted(entries) == ["größe.py", "link.py", "shop/cart.py", "shop/tax.py"]
        assert entries["link.py"].mode == 0o120000
        assert entries["größe.py"].size == 6
        assert entries["größe.py"].blob_id == blob_id_of(b"x = 1\n")


def test_blobs_come_in_the_order_asked_for_also_by_the_thousand(tmp_path: Path, store: Store) -> None:
    files = {f"f{number}.py": f"x = {number}\n" * (number % 50 + 1) for number in range(700)}
    with opened(make_repository(tmp_path / "many", files), store) as source:
        wanted = [entry.blob_id for entry in reversed(source.entries())]
        read = list(source.read(wanted))
        assert [blob_id for blob_id, _ in read] == wanted
        assert all(blob_id_of(content) == blob_id for blob_id, content in read)


def test_commit_at_is_the_last_one_at_or_before(shop: Path, store: Store) -> None:
    with opened(shop, store) as source:
        first = run_git(shop, "rev-parse", "HEAD~1")
        assert source.commit_at(FIRST_COMMIT - 1) == ""
        assert source.commit_at(FIRST_COMMIT) == first
        assert source.commit_at(FIRST_COMMIT + DAY - 1) == first
        assert source.commit_at(FIRST_COMMIT + DAY) == source.head
        assert {entry.path for entry in source.entries(first)} == {"shop/cart.py", "shop/tax.py"}


def test_branches_and_tags_are_revisions(shop: Path, store: Store) -> None:
    run_git(shop, "tag", "v1", "HEAD~1")
    with opened(shop, store, branch="v1") as source:
        assert source.head == run_git(shop, "rev-parse", "v1")
        assert source.resolve("main") == run_git(shop, "rev-parse", "main")
        with pytest.raises(RepositoryError, match="no commit 'nowhere'"):
            source.resolve("nowhere")


def test_a_bare_repository_and_a_git_folder_read_like_a_work_tree(shop: Path, store: Store, tmp_path: Path) -> None:
    run_git(tmp_path, "clone", "--quiet", "--bare", str(shop), "bare.git")
    for path in (tmp_path / "bare.git", shop / ".git"):
        with opened(path, store) as source:
            assert len(source.entries()) == 2


def test_a_url_is_mirrored_and_fetched(shop: Path, store: Store) -> None:
    url = shop.as_uri()
    with opened(url, store) as source:
        assert source.head == run_git(shop, "rev-parse", "HEAD")
    newer = commit(shop, {"new.py": "y = 1\n"}, "New", at=FIRST_COMMIT + 3 * DAY)
    with opened(url, store) as source:
        assert source.head == newer
        assert source.notice == ""
    assert len(list(store.repositories.iterdir())) == 1


def test_a_mirror_follows_a_renamed_default_branch(shop: Path, store: Store) -> None:
    opened(shop.as_uri(), store).close()
    run_git(shop, "branch", "--quiet", "-m", "main", "trunk")
    newer = commit(shop, {"new.py": "y = 1\n"}, "New", at=FIRST_COMMIT + 3 * DAY)
    with opened(shop.as_uri(), store) as source:
        assert source.head == newer


def test_an_unreachable_url_leaves_the_old_mirror_readable_and_says_so(shop: Path, store: Store) -> None:
    url = shop.as_uri()
    opened(url, store).close()
    shutil.move(shop, shop.with_name("moved"))
    with opened(url, store) as source:
        assert "fetch failed" in source.notice
        assert "reading the mirror of" in source.notice
        assert len(source.entries()) == 2


def test_a_failed_clone_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="cannot be cloned"):
        opened((tmp_path / "nowhere").as_uri(), store)
    assert list(store.repositories.iterdir()) == []


def test_hooks_of_a_mirror_never_run(shop: Path, store: Store, tmp_path: Path) -> None:
    opened(shop.as_uri(), store).close()
    (mirror,) = store.repositories.iterdir()
    hook = mirror / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    commit(shop, {"new.py": "y = 1\n"}, "New", at=FIRST_COMMIT + 3 * DAY)
    opened(shop.as_uri(), store).close()
    assert not (tmp_path / "ran").exists()


def test_passwords_in_urls_are_not_repeated(store: Store) -> None:
    with pytest.raises(RepositoryError) as caught:
        opened("http://joe:hunter42@127.0.0.1:9/x.git", store)
    assert "hunter42" not in str(caught.value)


def test_not_a_repository(tmp_path: Path, store: Store) -> None:
    with pytest.raises(RepositoryError, match="not a git repository"):
        opened(tmp_path, store)


def test_a_folder_inside_a_repository_is_pointed_to_its_root(shop: Path, store: Store) -> None:
    with pytest.raises(RepositoryError, match=r"it lies inside one: give .*shop and `include` globs"):
        opened(shop / "shop", store)


def test_a_missing_path(tmp_path: Path, store: Store) -> None:
    with pytest.raises(RepositoryError, match="no such directory"):
        opened(tmp_path / "missing", store)


def test_an_unknown_branch_names_those_there_are(shop: Path, store: Store) -> None:
    run_git(shop, "branch", "release")
    with pytest.raises(RepositoryError, match=r"no branch 'develop'; there are (main, release|release, main)"):
        opened(shop, store, branch="develop")


def test_an_empty_history(tmp_path: Path, store: Store) -> None:
    run_git(tmp_path, "init", "--quiet", "empty")
    with pytest.raises(RepositoryError, match="the history is empty"):
        opened(tmp_path / "empty", store)


def test_a_head_without_commits_names_the_branches(shop: Path, store: Store) -> None:
    run_git(shop, "symbolic-ref", "HEAD", "refs/heads/gone")
    with pytest.raises(RepositoryError, match="there are main; set `branch`"):
        opened(shop, store)


def test_a_shallow_clone_is_refused_unless_only_its_code_is_wanted(shop: Path, store: Store, tmp_path: Path) -> None:
    run_git(tmp_path, "clone", "--quiet", "--depth=1", shop.as_uri(), "shallow")
    with pytest.raises(RepositoryError, match=r"shallow clone.*fetch --unshallow"):
        opened(tmp_path / "shallow", store)
    with opened(tmp_path / "shallow", store, history=False) as source:
        assert len(source.entries()) == 2


def test_an_object_that_is_not_there_is_named_and_the_source_goes_on(shop: Path, store: Store) -> None:
    with opened(shop, store) as source:
        with pytest.raises(RepositoryError, match="object 1111111111111111111111111111111111111111 cannot be read"):
            list(source.read(["1" * 40]))
        assert len(list(source.read(entry.blob_id for entry in source.entries()))) == 2


def test_git_missing_is_said(shop: Path, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RepositoryError, match="git is not installed"):
        opened(shop, store)


def test_a_redirected_git_is_refused(shop: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", os.devnull)
    with pytest.raises(RepositoryError, match="GIT_DIR, which redirects git"):
        opened(shop, store)


def test_an_option_is_no_source(store: Store) -> None:
    with pytest.raises(RepositoryError, match="neither a path nor a URL"):
        opened("--upload-pack=touch", store)


def test_an_installed_package_is_read_without_importing_it(store: Store) -> None:
    loaded = "networkx" in sys.modules
    source = open_source(RepositorySettings(source="package:networkx"), store)
    assert isinstance(source, PackageSource)
    entries = {entry.path: entry for entry in source.entries()}
    graph = entries["networkx/classes/graph.py"]
    ((_, content),) = source.read([graph.blob_id])
    assert blob_id_of(content) == graph.blob_id
    assert b"class Graph" in content
    assert ("networkx" in sys.modules) is loaded
    assert source.repo is None


def test_a_package_is_found_by_its_distribution_name_too(store: Store) -> None:
    source = open_source(RepositorySettings(source="package:GitPython"), store)
    assert any(entry.path == "git/repo/base.py" for entry in source.entries())


def test_a_distribution_is_read_whole_and_alone(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several top-level packages, a module, and a namespace shared with another distribution."""
    files = ["alpha/__init__.py", "alpha/deep/a.py", "beta.py", "shared/ours/b.py", "alpha/__pycache__/c.py"]
    for name in (*files, "shared/theirs/d.py", "two_tops-1.0.dist-info/METADATA"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("Metadata-Version: 2.1\nName: two-tops\nVersion: 1.0\n" if "METADATA" in name else "x = 1\n")
    record = "".join(f"{name},,\n" for name in (*files, "alpha/gone.py", "../../bin/e.py", "__editable__f.py"))
    (tmp_path / "two_tops-1.0.dist-info" / "RECORD").write_text(record)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = open_source(RepositorySettings(source="package:two-tops"), store)
    assert [entry.path for entry in source.entries()] == [
        "alpha/__init__.py",
        "alpha/deep/a.py",
        "beta.py",
        "shared/ours/b.py",
    ]
    assert [content for _, content in source.read([source.entries()[0].blob_id])] == [b"x = 1\n"]


def test_an_unknown_package_is_said(store: Store) -> None:
    with pytest.raises(RepositoryError, match="no installed package of this name"):
        open_source(RepositorySettings(source="package:no-such-package"), store)


def test_a_package_has_no_branches_and_no_history(store: Store) -> None:
    with pytest.raises(RepositoryError, match="no branches"):
        open_source(RepositorySettings(source="package:networkx", branch="main"), store)
    with pytest.raises(RepositoryError, match="no history"):
        open_source(RepositorySettings(source="package:networkx"), store).entries("abc")


def test_the_standard_library_leaves_its_tests_out() -> None:
    paths = {entry.path for entry in standard_library().entries()}
    assert "json/decoder.py" in paths
    assert not any(path.startswith(("test/", "site-packages/")) for path in paths)
