"""Small pairs that can be learnt: each query names what only its own passage holds."""

from pathlib import Path

import polars as pl

from embed_assets.encoder.load import load_encoder
from embed_assets.models import CATALOGUE
from embed_assets.records import PAIR_SCHEMA, digest_of
from embed_assets.settings import TrainingSettings
from embed_assets.training.data import TrainingData, prepare
from embed_assets.training.memory import MemoryPlan
from embed_assets.training.recipe import Recipe, derive_recipe
from tests.tiny_models import build

WORDS = ("retry", "webhook", "header", "cache", "reload", "race", "parse", "post", "entries", "fox", "dog", "jumps")
ONE_GO = MemoryPlan(micro_batch_tokens=256, cached_gradients=False, reason="for tests")


def pairs_table(rows: int, *, validation: int = 0, negatives: int = 1) -> pl.DataFrame:
    """PAIR_SCHEMA rows; the last `validation` of them are validation rows."""
    made = []
    for number in range(rows):
        first, second = WORDS[number % 12], WORDS[(number * 5 + number // 12) % 12]
        positive = f"module.py run{number}\ndef run{number}({first}): return {second}({number})" + " # more" * (
            number % 5
        )
        others = [f"module.py other\ndef other{number + k}(): return {second}" for k in range(negatives)]
        made.append(
            {
                "pair_id": str(number), "query_id": digest_of(str(number)), "source": "docstring",
                "split": "validation" if number >= rows - validation else "train",
                "query": f"{first} the {second} number {number}", "positive": positive,
                "definition_id": f"d{number}", "snippet_id": f"s{number}", "hard_negatives": others, "repository": "r",
                "language": "python", "group_id": "g", "weight": 1.0, "written_at": number,
            }
        )  # fmt: skip
    return pl.DataFrame(made, schema=dict(PAIR_SCHEMA))


def tiny_recipe(alias: str = "minilm", **changes: object) -> Recipe:
    """What would be derived for the alias, small."""
    spec = CATALOGUE[alias]
    settings = TrainingSettings(epochs=2, batch_size=8, learning_rate=0.01, lora_rank=4)
    recipe = derive_recipe(settings, rows=64, commit_share=0, model_type=spec.model_type, spec=spec)
    return Recipe.from_json({**recipe.to_json(), **changes})


def tiny_data(folder: Path, alias: str = "minilm", rows: int = 30) -> tuple["Path", TrainingData]:
    """A model's folder (built on the first call) and tokenised rows for it."""
    from tests.tiny_models import FOLDER_NAMES

    path = folder / FOLDER_NAMES[alias]
    if not path.exists():
        build(alias, folder)
    return path, prepare(load_encoder(path, device="cpu"), pairs_table(rows), hard_negatives=1)
