"""What a model folder says about itself is read from both generations of the layout, and refused when unsound."""

import json
from pathlib import Path
from typing import Any

import pytest

from embed_assets.encoder.layout import ModelError, read_layout
from tests.tiny_models import build


def edit(path: Path, name: str, **changes: Any) -> None:
    document = json.loads((path / name).read_text()) if (path / name).exists() else {}
    (path / name).write_text(json.dumps({**document, **changes}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A fine-tuned BERT: its folder's name says nothing."""
    return build("minilm", tmp_path).rename(tmp_path / "tuned")


@pytest.mark.parametrize(("name", "expected"), [("mean", "mean"), ("cls", "cls"), ("lasttoken", "last")])
def test_the_newer_pooling_name(model: Path, name: str, expected: str) -> None:
    (model / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 32, "pooling_mode": name}))
    assert read_layout(model).pooling == expected


def test_pooling_that_is_not_supported(model: Path) -> None:
    edit(model, "1_Pooling/config.json", pooling_mode_max_tokens=True)
    with pytest.raises(ModelError, match=r"asks for pooling mean\+max; supported is one of mean, lasttoken, cls"):
        read_layout(model)


def test_prompts_and_length_of_the_folder_count_where_the_catalogue_knows_nothing(model: Path) -> None:
    edit(model, "config_sentence_transformers.json", prompts={"query": "search: ", "document": "code: "})
    layout = read_layout(model)
    assert layout.spec is None
    assert (layout.query_prompt, layout.passage_prompt, layout.max_tokens) == ("search: ", "code: ", 32)


def test_newer_module_types(model: Path) -> None:
    kinds = ["base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling"]
    modules = [
        {"idx": i, "name": str(i), "path": ["", "1_Pooling"][i], "type": f"sentence_transformers.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (model / "modules.json").write_text(json.dumps(modules))
    assert read_layout(model).pooling == "mean"


def test_a_dense_module_is_refused(model: Path) -> None:
    modules = json.loads((model / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (model / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="lists Transformer, Pooling, Normalize, Dense; supported"):
        read_layout(model)


def test_code_of_the_models_own_is_refused(model: Path) -> None:
    edit(
        model, "config.json", auto_map={"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling.XLMRobertaLoRA"}
    )
    with pytest.raises(ModelError, match=r"needs code of its own .*jina-embeddings-v3-hf"):
        read_layout(model)


def test_a_custom_copy_of_a_native_class_is_no_code_of_its_own(model: Path) -> None:
    edit(model, "config.json", auto_map={"AutoModel": "modeling_qwen.Qwen2Model"})
    assert read_layout(model).model_type == "bert"


def test_pickled_weights_are_refused(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled weights only \(pytorch_model.bin\)"):
        read_layout(model)
    (model / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"model.safetensors is missing"):
        read_layout(model)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is damaged"), ("[]", "holds a list"), ("{}", "names no model_type")]
)
def test_a_damaged_configuration(model: Path, content: str, message: str) -> None:
    (model / "config.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        read_layout(model)
