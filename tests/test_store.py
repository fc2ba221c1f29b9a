"""The store: what is written is whole or absent, links move atomically, ids cannot leave their folder."""

from pathlib import Path

import pytest

from embed_assets.files import (
    DiskFullError,
    StoreError,
    append_line,
    directory_digests,
    new_directory,
    point_link,
    read_json,
    read_lines,
    write_file,
    write_json,
    write_text,
)
from embed_assets.store import Store


def no_leftovers(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "document.json"
    write_json(path, {"version": 1})

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(DiskFullError, match=f"{path} cannot be written, there is no room for it.*No space left"):
        write_json(path, {"version": 2})
    assert read_json(path) == {"version": 1}
    assert no_leftovers(tmp_path)


@pytest.mark.parametrize("said", ["I/O error: File too large (os error 27)", "No space left on device (os error 28)"])
def test_a_full_disk_that_a_library_tells_of_in_words_is_a_full_disk(tmp_path: Path, said: str) -> None:
    """As safetensors and polars do."""

    def full(path: Path) -> None:
        raise ValueError(said)

    with pytest.raises(DiskFullError, match="there is no room"):
        write_file(tmp_path / "table.parquet", full)
    with pytest.raises(DiskFullError, match="there is no room"), new_directory(tmp_path / "candidate") as folder:
        full(folder)
    with pytest.raises(ValueError, match="os error 13"), new_directory(tmp_path / "candidate"):
        raise ValueError("Permission denied (os error 13)")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_file(tmp_path / "table.parquet", broken)
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_written_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "service.json"
    write_json(path, {"token": "x"}, mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"), new_directory(tmp_path / "a") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []
    with new_directory(tmp_path / "a") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "file").read_text() == "x"
    with pytest.raises(StoreError, match="immutable"), new_directory(tmp_path / "a"):
        pass


def test_a_link_is_relative_and_moves(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    link = tmp_path / "latest"
    point_link(link, tmp_path / "checkpoints" / "one")
    point_link(link, tmp_path / "checkpoints" / "two")
    assert link.readlink() == Path("checkpoints/two")
    assert no_leftovers(tmp_path)


def test_a_damaged_document_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "{")
    with pytest.raises(StoreError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")
    with pytest.raises(StoreError, match=r"b\.json does not exist"):
        read_json(tmp_path / "b.json")


def test_lines_survive_a_crash_in_the_middle_of_one(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_line(path, {"n": 1})
    with path.open("a") as file:
        file.write('{"n": 2')
    assert read_lines(path) == [{"n": 1}]
    append_line(path, {"n": 3})
    assert read_lines(path) == [{"n": 1}, {"n": 3}]


def test_a_damaged_line_in_the_middle_is_not_skipped(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    write_text(path, '{"n": 1}\nnonsense\n{"n": 2}\n')
    with pytest.raises(StoreError, match="line 2"):
        read_lines(path)


@pytest.mark.parametrize("name", ["", "..", "../other", "a/b", ".hidden", "a\0b", "a b"])
def test_ids_cannot_leave_their_folder(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="is no id"):
        store.checkpoint(name)


def test_links_inside_a_digested_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert set(directory_digests(tmp_path)) == {"a"}
    (tmp_path / "b").symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match="symbolic link, b"):
        directory_digests(tmp_path)
