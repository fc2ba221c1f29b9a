"""Each architecture loads from its true file layout and gives what sentence-transformers gives."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from embed_assets.encoder.layout import ModelError
from embed_assets.encoder.load import load_encoder
from tests.tiny_models import BUILDERS, CORPUS, build

TEXTS = [*CORPUS, "x", "def f(): pass", ""]


@pytest.fixture(params=sorted(BUILDERS))
def alias(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def by_hand(path: Path, pooling: str, rows: list[list[int]], *, causal: bool) -> np.ndarray:
    """One text at a time, no padding, no mask: what batching must not change."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()
    model.config.is_causal = causal
    vectors = []
    with torch.no_grad():
        for row in rows:
            states = model(input_ids=torch.tensor([row])).last_hidden_state[0]
            vectors.append(torch.nn.functional.normalize(states[-1] if pooling == "last" else states.mean(0), dim=-1))
    return torch.stack(vectors).numpy()


def test_batched_vectors_equal_those_of_single_texts(alias: str, tmp_path: Path) -> None:
    encoder = load_encoder(build(alias, tmp_path), device="cpu")
    rows = list(encoder.tokenise(TEXTS))
    expected = by_hand(encoder.path, encoder.pooling, rows, causal=encoder.causal)
    assert np.abs(encoder.encode(TEXTS, batch_tokens=64) - expected).max() < 1e-5
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5


def test_the_catalogue_is_recognised_and_its_facts_hold(alias: str, tmp_path: Path) -> None:
    encoder = load_encoder(build(alias, tmp_path), device="cpu")
    assert encoder.spec is not None
    assert encoder.spec.alias == alias
    assert encoder.pooling == ("last" if alias == "qodo" else "mean")
    assert encoder.causal == (alias == "qodo")
    assert (encoder.query_prompt, encoder.passage_prompt) == (
        ("query: ", "passage: ") if alias == "e5-large" else ("", "")
    )


def test_prompts_stand_in_front_of_the_text(tmp_path: Path) -> None:
    encoder = load_encoder(build("e5-large", tmp_path), device="cpu")
    assert encoder.tokenise(["retry"], "query")[0] == encoder.tokenizer("query: retry")["input_ids"]
    assert encoder.tokenise(["retry"], "passage")[0] == encoder.tokenizer("passage: retry")["input_ids"]
    assert not np.allclose(encoder.encode(["retry"], kind="query"), encoder.encode(["retry"], kind="passage"))


def test_positions_of_xlm_roberta_start_behind_the_padding_id(tmp_path: Path) -> None:
    """With positions from 0 the vectors are other ones: the reference counts from 2 explicitly."""
    encoder = load_encoder(build("e5-large", tmp_path), device="cpu")
    row = encoder.tokenise(["retry the webhook"])[0]
    model = encoder.model
    with torch.no_grad():
        vectors = {}
        for first in (0, 2):
            positions = torch.arange(first, first + len(row))[None]
            states = model(input_ids=torch.tensor([row]), position_ids=positions).last_hidden_state[0].mean(0)
            vectors[first] = torch.nn.functional.normalize(states, dim=-1).numpy()
    found = encoder.encode(["retry the webhook"])[0]
    assert np.abs(found - vectors[2]).max() < 1e-5
    assert np.abs(found - vectors[0]).max() > 1e-3
    assert encoder.max_tokens == 64  # 66 positions, the first two are never used


def test_a_last_token_model_ends_with_its_end_token_also_when_cut(tmp_path: Path) -> None:
    encoder = load_encoder(build("qodo", tmp_path), device="cpu", max_tokens=16)
    rows = encoder.tokenise(["short", "long " * 100])
    end = encoder.tokenizer.eos_token_id
    assert [row[-1] for row in rows] == [end, end]
    assert len(rows[1]) == 16
    assert rows[0].count(end) == 1
    assert rows.truncated == 1


def test_an_end_token_is_needed_and_missing(tmp_path: Path) -> None:
    path = build("qodo", tmp_path)
    settings = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(
        json.dumps({**settings, "eos_token": None, "tokenizer_class": "PreTrainedTokenizerFast"})
    )
    with pytest.raises(ModelError, match="names no eos_token"):
        load_encoder(path, device="cpu")


@pytest.mark.parametrize("causal", [True, False])
def test_the_attention_direction_is_pinned_with_and_without_padding(causal: bool, tmp_path: Path) -> None:
    """A Qwen2 that looks both ways must do so for a batch without padding too, where there is no mask."""
    path = build("qodo", tmp_path).rename(tmp_path / "two-way")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "is_causal": causal}))
    encoder = load_encoder(path, device="cpu")
    assert encoder.causal == causal
    first, second = encoder.tokenise(["retry the failed webhook", "parse the header of a file twice"])
    with torch.no_grad():
        alone = encoder.model(input_ids=torch.tensor([first])).last_hidden_state[0, 0]
        changed = encoder.model(input_ids=torch.tensor([[first[0], *second[: len(first) - 1]]])).last_hidden_state[0, 0]
    assert torch.allclose(alone, changed, atol=1e-6) == causal  # what follows reaches the first token, or not
    together = encoder.encode_rows([first, second])
    assert np.abs(together - np.concatenate([encoder.encode_rows([first]), encoder.encode_rows([second])])).max() < 1e-5


def test_truncation_and_padding_prescribed_by_the_tokenizer_file_do_not_count(tmp_path: Path) -> None:
    encoder = load_encoder(build("minilm", tmp_path), device="cpu")
    rows = encoder.tokenise(["x", "retry the webhook " * 40])
    assert [len(row) for row in rows] == [3, 64]
    assert rows[1][-1] == rows[0][-1]  # [SEP] stays last


def test_space_id_tells_models_and_lengths_apart(tmp_path: Path) -> None:
    path = build("minilm", tmp_path)
    same, shorter = load_encoder(path, device="cpu"), load_encoder(path, device="cpu", max_tokens=20)
    assert same.space_id == load_encoder(path, device="cpu").space_id
    assert same.space_id != shorter.space_id
    assert same.space_id != load_encoder(build("e5-large", tmp_path), device="cpu").space_id


@pytest.mark.parametrize("limit", [0, 65, 2])
def test_max_tokens_beyond_the_positions_or_below_the_special_tokens(limit: int, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"max_tokens is {limit}"):
        load_encoder(build("minilm", tmp_path), device="cpu", max_tokens=limit)


def test_missing_weights_are_an_error_and_not_random_numbers(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = build("minilm", tmp_path)
    weights = load_file(path / "model.safetensors")
    dropped = weights.pop("encoder.layer.1.output.dense.weight")
    assert dropped.numel()
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights of a bert \(encoder.layer.1.output.dense.weight"):
        load_encoder(path, device="cpu")


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    path = build("minilm", tmp_path)
    (path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer: tokenizer.json is missing"):
        load_encoder(path, device="cpu")


def test_an_absent_device_is_named(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ModelError, match=r"device 'cuda' is not there.*available: cpu"):
        load_encoder(build("minilm", tmp_path), device="cuda")
