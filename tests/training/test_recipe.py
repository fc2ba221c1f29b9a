"""What is set is kept, what is unset follows from the data and the model."""

import pytest

from embed_assets.models import CATALOGUE
from embed_assets.settings import TrainingSettings
from embed_assets.training.errors import TrainingError
from embed_assets.training.recipe import HISTORY, PLAIN_HISTORY, Recipe, derive_recipe, expectation

MINILM = CATALOGUE["minilm"]


def derived(settings: TrainingSettings | None = None, **changes: object) -> Recipe:
    arguments: dict[str, object] = {"rows": 2000, "commit_share": 0.6, "model_type": "bert", "spec": MINILM, **changes}
    return derive_recipe(settings or TrainingSettings(), **arguments)  # type: ignore[arg-type]


def test_commits_take_a_lower_rate_and_larger_batches_than_documentation() -> None:
    history, documents = derived(), derived(commit_share=0.0)
    assert history.learning_rate < documents.learning_rate
    assert history.batch_size >= documents.batch_size


def test_large_data_takes_fewer_passes_and_a_night_never_costs_more_than_its_rows() -> None:
    assert [derived(rows=rows).epochs for rows in (300, 1400, 1500, 2000, 50_000)] == [4, 4, 3, 2, 2]
    assert [derived(rows=rows, commit_share=0.0).epochs for rows in (300, 1300, 50_000)] == [5, 3, 2]


def test_a_history_stays_a_history_where_most_rows_are_documentation() -> None:
    assert derived(commit_share=0.3) == derived(commit_share=0.9)


def test_what_can_be_expected_is_said_before_training() -> None:
    assert "no gain could be shown below 250" in expectation(249, 1.0)
    assert "10 points over the base model on average" in expectation(250, 1.0)
    assert "held-out docs" in expectation(2_000, 0.0)


def test_what_is_set_is_kept() -> None:
    settings = TrainingSettings(
        epochs=3, batch_size=10, learning_rate=0.5, temperature=0.1, lora_rank=2, delta_scale=0.9, seed=5
    )
    recipe = derived(settings)
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.temperature) == (3, 10, 0.5, 0.1)
    assert (recipe.lora_rank, recipe.lora_alpha, recipe.delta_scale, recipe.seed) == (2, 4, 0.9, 5)


def test_few_rows_take_smaller_batches() -> None:
    assert [derived(rows=rows).batch_size for rows in (2000, 300, 40, 2)] == [64, 32, 8, 8]


def test_small_models_mine_their_negatives_from_the_corpus_of_a_history() -> None:
    assert derived().mined and derived().hard_negatives == 2
    assert not derived(commit_share=0.0).mined
    assert not derived(hard_negatives=0).mined
    assert not derived(model_type="qwen2", spec=CATALOGUE["qodo"]).mined


@pytest.mark.parametrize(("dial", "setting"), [("rehearsal", "rehearsal_weight"), ("lexical_share", "lexical_share")])
def test_small_models_with_a_history_rehearse_and_have_a_teacher_unless_told_otherwise(dial: str, setting: str) -> None:
    def found(told: float | None = None, **changes: object) -> float:
        settings = TrainingSettings.model_validate({} if told is None else {setting: told})
        return float(getattr(derived(settings, **changes), dial))

    assert found() == getattr(HISTORY, dial) > 0
    assert found(commit_share=0.0) == 0
    assert found(model_type="qwen2", spec=CATALOGUE["qodo"]) == 0
    assert found(0) == 0
    assert found(0.5, commit_share=0.0) == 0.5


@pytest.mark.parametrize("setting", ["lexical_share", "rehearsal_weight"])
def test_without_its_teacher_or_its_rehearsal_a_history_takes_the_smaller_rank_and_scale(setting: str) -> None:
    less = derived(settings=TrainingSettings.model_validate({setting: 0}))
    assert (less.lora_rank, less.delta_scale) == (PLAIN_HISTORY.lora_rank, PLAIN_HISTORY.delta_scale)
    assert less.lora_rank < derived().lora_rank and less.delta_scale < derived().delta_scale
    assert less.mined


def test_an_adapter_that_is_continued_keeps_its_rank_and_scale() -> None:
    continued = derived(start_rank=8, start_scale=0.6)
    assert (continued.lora_rank, continued.delta_scale) == (8, 0.6)
    assert derived(settings=TrainingSettings(delta_scale=1), start_scale=0.6).delta_scale == 1


def test_rows_alone_ask_for_nothing_that_is_not_at_hand() -> None:
    alone = derived(corpus_at_hand=False)
    assert not alone.mined and (alone.rehearsal, alone.lexical_share) == (0, 0)
    assert alone.lora_rank < derived().lora_rank and alone.delta_scale < derived().delta_scale
    assert alone.learning_rate == derived().learning_rate
    assert derived(corpus_at_hand=False, commit_share=0.0) == derived(commit_share=0.0)


def test_large_models_move_less() -> None:
    qodo = CATALOGUE["qodo"]
    assert derived(model_type="qwen2", spec=qodo).learning_rate < derived().learning_rate
    assert derived(model_type="qwen2", spec=qodo).lora_targets == qodo.lora_targets


def test_a_recipe_survives_json() -> None:
    assert Recipe.from_json(derived().to_json()) == derived()


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows(rows: int) -> None:
    with pytest.raises(TrainingError, match=f"{rows} training rows; at least 2 are needed"):
        derived(rows=rows)


def test_an_architecture_nobody_knows() -> None:
    with pytest.raises(TrainingError, match="no LoRA targets are known for model type 'mamba'; known: bert"):
        derived(model_type="mamba", spec=None)


def test_a_model_outside_the_catalogue_is_large_by_its_own_count() -> None:
    small, large = (derived(model_type="qwen2", spec=None, parameters=count) for count in (22_000_000, 1_500_000_000))
    assert small.mined
    assert not large.mined
    assert large.learning_rate < small.learning_rate
