"""The catalogue: every name that people use leads to one entry, and every entry can be trained."""

import pytest

from embed_assets.models import CATALOGUE, LORA_TARGETS_BY_TYPE, known


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("minilm", "minilm"),
        ("sentence-transformers/all-MiniLM-L6-v2", "minilm"),
        ("qodo", "qodo"),
        ("Qodo/Qodo-Embed-1-1.5B", "qodo"),
        ("jina-v3", "jina-v3"),
        ("jinaai/jina-embeddings-v3", "jina-v3"),
        ("jinaai/jina-embeddings-v3-hf", "jina-v3"),
        ("e5-large", "e5-large"),
        ("intfloat/multilingual-e5-large", "e5-large"),
    ],
)
def test_a_model_is_known_by_alias_and_by_its_names_on_the_hub(name: str, alias: str) -> None:
    model = known(name)
    assert model is not None
    assert model.alias == alias


def test_other_names_are_not_in_the_catalogue() -> None:
    assert known("BAAI/bge-small-en") is None
    assert known("./minilm") is None


def test_every_entry_can_be_trained_and_restricted_licences_warn() -> None:
    for model in CATALOGUE.values():
        assert model.lora_targets == LORA_TARGETS_BY_TYPE[model.model_type]
        assert model.max_tokens <= model.position_limit
        assert bool(model.licence_warning) is model.licence.startswith("CC-BY-NC")
        assert model.appends_end_token is (model.pooling == "last")
