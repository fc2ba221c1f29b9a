"""Vectors on disk: nothing is embedded twice, damaged files are not believed, spaces do not mix."""

import threading
from pathlib import Path

import numpy as np
import pytest

from embed_assets.evaluation.errors import EvaluationError
from embed_assets.evaluation.vectors import embed, in_turn, prune, stored_vectors
from tests.evaluation.made_store import FakeEncoder

TEXTS = ["one", "two", "three", "one"]


def stored(root: Path) -> Path:
    return root / "fake-0.0" / "corpus.safetensors"


def test_what_is_on_disk_is_not_embedded_again(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    first = embed(encoder, TEXTS, kind="passage", name="corpus", root=tmp_path)
    assert encoder.encoded == ["one", "two", "three"]
    again = FakeEncoder()
    second = embed(again, ["four", *TEXTS[::-1]], kind="passage", name="corpus", root=tmp_path)
    assert again.encoded == ["four"]
    np.testing.assert_array_equal(second[1:], first[::-1])
    np.testing.assert_array_equal(first, FakeEncoder().encode(TEXTS, kind="passage"))


def test_queries_and_passages_do_not_share_vectors(tmp_path: Path) -> None:
    encoder = FakeEncoder(noise=1.0)
    passage = embed(encoder, ["one"], kind="passage", name="both", root=tmp_path)
    query = embed(encoder, ["one"], kind="query", name="both", root=tmp_path)
    assert not np.allclose(passage, query)


def test_two_models_do_not_share_vectors(tmp_path: Path) -> None:
    first = embed(FakeEncoder(), TEXTS, kind="query", name="corpus", root=tmp_path)
    assert not np.allclose(first, embed(FakeEncoder(noise=1.0), TEXTS, kind="query", name="corpus", root=tmp_path))


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_file_is_embedded_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = embed(FakeEncoder(), TEXTS, kind="passage", name="corpus", root=tmp_path)
    content = bytearray(stored(tmp_path).read_bytes())
    if damage == "flipped":
        content[-5] ^= 0xFF
    else:
        del content[(len(content) // 2 if damage == "cut" else 0) :]
    stored(tmp_path).write_bytes(content)
    encoder = FakeEncoder()
    np.testing.assert_array_equal(embed(encoder, TEXTS, kind="passage", name="corpus", root=tmp_path), expected)
    assert encoder.encoded == ["one", "two", "three"]
    assert "embedded again" in caplog.text
    assert not embed(later := FakeEncoder(), [], kind="passage", name="corpus", root=tmp_path).size
    assert later.encoded == []


def test_only_texts_in_use_are_kept(tmp_path: Path) -> None:
    embed(FakeEncoder(), ["one", "two"], kind="passage", name="corpus", root=tmp_path)
    embed(FakeEncoder(), ["two", "three"], kind="passage", name="corpus", root=tmp_path)
    encoder = FakeEncoder()
    embed(encoder, ["one", "two", "three"], kind="passage", name="corpus", root=tmp_path)
    assert encoder.encoded == ["one"]


def test_progress_counts_every_text(tmp_path: Path) -> None:
    for _ in range(2):
        seen: list[int] = []
        embed(FakeEncoder(), ["a", "b", "c"], kind="passage", name="corpus", root=tmp_path, progress=seen.append)
        assert sum(seen) == 3


def test_stale_spaces_are_pruned(tmp_path: Path) -> None:
    embed(FakeEncoder(), TEXTS, kind="passage", name="corpus", root=tmp_path)
    embed(FakeEncoder(noise=1.0), TEXTS, kind="passage", name="corpus", root=tmp_path)
    prune(tmp_path, {"fake-1.0"})
    assert [folder.name for folder in tmp_path.iterdir()] == ["fake-1.0"]
    prune(tmp_path / "never made", set())


def test_evaluations_over_one_store_take_turns(tmp_path: Path) -> None:
    """Without it each removes the folder that the other writes to."""
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with in_turn(tmp_path):
            order.append("second")

    thread = threading.Thread(target=second)
    with in_turn(tmp_path):
        thread.start()
        waiting.wait(10)
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_other_parts_are_another_document(tmp_path: Path) -> None:
    parts = [["on", "e"], [], []]
    encoder = FakeEncoder()
    first = embed(encoder, TEXTS[:3], kind="passage", name="corpus", root=tmp_path, parts=parts)
    np.testing.assert_array_equal(first, encoder.encode_documents(TEXTS[:3], parts))
    again = FakeEncoder()
    changed = embed(again, TEXTS[:3], kind="passage", name="corpus", root=tmp_path, parts=[["o", "ne"], [], []])
    assert again.encoded == ["one"]
    assert not np.allclose(changed[0], first[0])
    np.testing.assert_array_equal(changed[1:], first[1:])
    kept = {"kind": "passage", "name": "corpus", "space_id": again.space_id, "root": tmp_path}
    np.testing.assert_array_equal(stored_vectors(TEXTS[:3], **kept, parts=[["o", "ne"], [], []]), changed)  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="1 of 3 texts"):
        stored_vectors(TEXTS[:3], **kept)  # type: ignore[arg-type]
