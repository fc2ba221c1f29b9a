"""The dials of one training run. What the settings leave unset is derived from the data and the model.

The rules and the measurements behind them are in docs/training.md. The recipe knows no device and no path: the
same recipe on the same pairs is the same training, wherever it runs.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from embed_assets import models
from embed_assets.settings import TrainingSettings
from embed_assets.training.errors import TrainingError

CODE_VERSION = 7
"""Raised when the same recipe on the same pairs would train another adapter than before."""

HISTORY_SHARE = 0.1
"""Share of commit queries from which the recipe is that of a history: docs beside them do not ask for another."""
FEWEST_EPOCHS = 2
FEW_ROWS = 250


@dataclass(frozen=True, kw_only=True, slots=True)
class Dials:
    """What is taken where the settings say nothing: measured for a kind of data and a size of model."""

    visits: int
    """Passes times rows aimed at: beyond this the gain stands still, forgetting grows, and two cores take long."""
    most_epochs: int
    batch_size: int
    """Wanted; few rows take smaller ones."""
    learning_rate: float
    lora_rank: int = 16
    mined: bool = False
    rehearsal: float = 0.0
    lexical_share: float = 0.0
    delta_scale: float = 0.75
    """Three quarters of the change keep nine tenths of the gain; no rule that chose it each night did better
    (docs/experiments.md, "what else the recipe could do")."""


PLAIN_HISTORY = Dials(visits=5_000, most_epochs=4, batch_size=64, learning_rate=8e-4)
"""Without a lexical teacher, or without rehearsal: rows that come alone have neither."""
HISTORY = replace(PLAIN_HISTORY, lora_rank=32, mined=True, rehearsal=7.0, lexical_share=0.35, delta_scale=0.9)
"""Measured with MiniLM on twenty-eight repositories (docs/experiments.md, "Recall: a lexical teacher"): rank and scale
pay beside the teacher and the rehearsal."""
DOCUMENTS = Dials(visits=4_000, most_epochs=5, batch_size=32, learning_rate=1e-3)
LARGE_RATE = 2e-4
"""Large models move less: all of the above was measured on 22 million parameters."""
LARGE_HISTORY = replace(PLAIN_HISTORY, learning_rate=LARGE_RATE)
LARGE_DOCUMENTS = replace(DOCUMENTS, learning_rate=LARGE_RATE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides what is learnt from given pairs."""

    epochs: int
    batch_size: int
    """Rows whose positives are each other's negatives."""
    learning_rate: float
    """Peak, after warm-up; it falls linearly to zero."""
    warmup_ratio: float
    weight_decay: float
    temperature: float
    max_gradient_norm: float
    lora_rank: int
    lora_alpha: int
    """The adapter's output is scaled by alpha / rank."""
    lora_targets: tuple[str, ...]
    """Names of the linear layers that get an adapter."""
    lora_excluded: tuple[str, ...]
    hard_negatives: int
    """Hard negatives of each row that are used."""
    mined: bool
    """Whether the first of them is mined with the base model, where the corpus is at hand."""
    rehearsal: float
    """Weight of the loss that keeps the base model's ranking of foreign docs, where they are at hand; 0 without."""
    lexical_share: float
    """Share of a lexical teacher in a row's loss, where the corpus is at hand; 0 without."""
    delta_scale: float
    """Share of the learnt change that is merged."""
    seed: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Recipe":
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in document.items()}
        return cls(**values)


def derive_recipe(
    settings: TrainingSettings,
    *,
    rows: int,
    commit_share: float,
    model_type: str,
    spec: models.BaseModel | None = None,
    parameters: int = 0,
    hard_negatives: int = 1,
    start_rank: int = 0,
    start_scale: float = 0.0,
    corpus_at_hand: bool = True,
) -> Recipe:
    """The recipe for `rows` training rows.

    Args:
        commit_share: share of the rows whose query is a commit's subject. A history is learnt in larger batches, at a
            lower rate and with mined negatives; documentation is close to the code's own words.
        model_type: of config.json; names the LoRA targets for models outside the catalogue.
        parameters: of such a model; the catalogue knows its own.
        hard_negatives: how many the rows bring; a mined one comes on top.
        start_rank: of the adapter that is continued; 0 where training begins with none.
        start_scale: `delta_scale` of that adapter, which stays: what it has learnt is scaled once more at the export.
        corpus_at_hand: whether a store's functions and foreign docs lie beside the rows.

    Raises:
        TrainingError: fewer than two rows, or no LoRA targets are known for this architecture.
    """
    if rows < 2:
        raise TrainingError(f"{rows} training rows; at least 2 are needed, and a gain is rarely seen below 250")
    targets = spec.lora_targets if spec else models.LORA_TARGETS_BY_TYPE.get(model_type, ())
    if not targets:
        allowed = ", ".join(sorted(models.LORA_TARGETS_BY_TYPE))
        raise TrainingError(f"no LoRA targets are known for model type {model_type!r}; known: {allowed}")
    large = (spec.parameters if spec else parameters) >= models.LARGE_FROM_PARAMETERS
    dials = _dials(settings, history=commit_share >= HISTORY_SHARE, large=large, corpus_at_hand=corpus_at_hand)
    mined = dials.mined and hard_negatives > 0
    rank = settings.lora_rank or start_rank or dials.lora_rank
    return Recipe(
        epochs=settings.epochs or min(dials.most_epochs, max(FEWEST_EPOCHS, round(dials.visits / rows))),
        batch_size=settings.batch_size or _batch_size(rows, dials.batch_size),
        learning_rate=settings.learning_rate or dials.learning_rate,
        warmup_ratio=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        temperature=settings.temperature,
        max_gradient_norm=1.0,
        lora_rank=rank,
        lora_alpha=2 * rank,
        lora_targets=targets,
        lora_excluded=spec.lora_excluded if spec else ("pooler",),
        hard_negatives=hard_negatives + mined,
        mined=mined,
        rehearsal=dials.rehearsal,
        lexical_share=dials.lexical_share,
        delta_scale=settings.delta_scale or start_scale or dials.delta_scale,
        seed=settings.seed,
    )


def _dials(settings: TrainingSettings, *, history: bool, large: bool, corpus_at_hand: bool) -> Dials:
    """The dials for this data and model, with the settings' own rehearsal and teacher."""
    if large:
        dials = LARGE_HISTORY if history else LARGE_DOCUMENTS
    elif not history:
        dials = DOCUMENTS
    else:
        dials = HISTORY if corpus_at_hand else PLAIN_HISTORY
    rehearsal = dials.rehearsal if settings.rehearsal_weight is None else settings.rehearsal_weight
    share = dials.lexical_share if settings.lexical_share is None else settings.lexical_share
    if dials is HISTORY and not (rehearsal and share):
        dials = replace(HISTORY, lora_rank=PLAIN_HISTORY.lora_rank, delta_scale=PLAIN_HISTORY.delta_scale)
    return replace(dials, rehearsal=rehearsal, lexical_share=share)


def expectation(rows: int, commit_share: float) -> str:
    """What may be hoped for, said before anything is trained; measured with MiniLM (benchmarks/reports)."""
    if rows < FEW_ROWS:
        return (
            f"{rows} training rows are few: no gain could be shown below {FEW_ROWS}, and the gate will most likely "
            "keep the live model; a longer history or more documentation would help"
        )
    if commit_share < HISTORY_SHARE:
        return f"{rows} training rows: with 1,859, recall@10 of held-out docs rose by 20 points over the base model"
    return (
        f"{rows} training rows: on thirty-six repositories with 230 to 4,300, recall@10 of later commits' subjects "
        "rose by 10 points over the base model on average, between -5 and +23; below 400 rows the outcome is open"
    )


def _batch_size(rows: int, wanted: int) -> int:
    """Small data keeps at least eight steps an epoch: fewer, larger steps measured worse."""
    size = wanted
    while size > 8 and rows / size < 8:
        size //= 2
    return size
