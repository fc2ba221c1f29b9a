"""The dials of one training run. What the settings leave unset is derived from the data and the model.

The rules and the measurements behind them are in docs/training.md. The recipe knows no device and no path: the
same recipe on the same pairs is the same training, wherever it runs.
"""

from dataclasses import asdict, dataclass
from typing import Any

from embed_assets import models
from embed_assets.settings import TrainingSettings
from embed_assets.training.errors import TrainingError

CODE_VERSION = 6
"""Raised when the same recipe on the same pairs would train another adapter than before."""

HISTORY_SHARE = 0.1
"""Share of commit queries from which the recipe is that of a history: docs beside them do not ask for another."""
ROW_VISITS = {"history": 5_000, "documents": 4_000}
"""Passes times rows aimed at: beyond this the gain stands still, forgetting grows, and two cores take long."""
MOST_EPOCHS = {"history": 4, "documents": 5}
FEWEST_EPOCHS = 2
FEW_ROWS = 250
REHEARSAL_WEIGHT = 5.0
"""Of MiniLM's forgetting on web queries, 2.2 points of recall@10, a sixth to a quarter is left, at no cost in recall:
the second hard negative makes up for what it takes (docs/experiments.md)."""
DELTA_SCALE = 0.75
"""Keeps nine tenths of the gain. At 3e-4 in 8 passes it turned forgetting of 0.8 points on the standard library into a
gain of 0.7; no rule that chose it each night did better (docs/experiments.md)."""


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
) -> Recipe:
    """The recipe for `rows` training rows.

    Args:
        commit_share: share of the rows whose query is a commit's subject. A history is learnt in larger batches, at a
            lower rate and with mined negatives; documentation is close to the code's own words.
        model_type: of config.json; names the LoRA targets for models outside the catalogue.
        parameters: of such a model; the catalogue knows its own.
        hard_negatives: how many the rows bring; a mined one comes on top.
        start_rank: of the adapter that is continued; 0 where training begins with none.

    Raises:
        TrainingError: fewer than two rows, or no LoRA targets are known for this architecture.
    """
    if rows < 2:
        raise TrainingError(f"{rows} training rows; at least 2 are needed, and a gain is rarely seen below 250")
    targets = spec.lora_targets if spec else models.LORA_TARGETS_BY_TYPE.get(model_type, ())
    if not targets:
        allowed = ", ".join(sorted(models.LORA_TARGETS_BY_TYPE))
        raise TrainingError(f"no LoRA targets are known for model type {model_type!r}; known: {allowed}")
    excluded = spec.lora_excluded if spec else ("pooler",)
    kind = "history" if commit_share >= HISTORY_SHARE else "documents"
    history = kind == "history"
    large = (spec.parameters if spec else parameters) >= models.LARGE_FROM_PARAMETERS
    mined = history and hard_negatives > 0 and not large
    rehearsal = settings.rehearsal_weight
    rank = settings.lora_rank or start_rank or 16
    return Recipe(
        epochs=settings.epochs or _epochs(rows, kind),
        batch_size=settings.batch_size or _batch_size(rows, 64 if history else 32),
        learning_rate=settings.learning_rate or _learning_rate(history=history, large=large),
        warmup_ratio=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        temperature=settings.temperature,
        max_gradient_norm=1.0,
        lora_rank=rank,
        lora_alpha=2 * rank,
        lora_targets=targets,
        lora_excluded=excluded,
        hard_negatives=hard_negatives + mined,
        mined=mined,
        rehearsal=rehearsal if rehearsal is not None else REHEARSAL_WEIGHT * (history and not large),
        delta_scale=settings.delta_scale or DELTA_SCALE,
        seed=settings.seed,
    )


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
        f"{rows} training rows: on twenty-six repositories with 230 to 4,000, recall@10 of later commits' subjects "
        "rose by 7 points over the base model on average, between -5 and +17; below 650 rows the outcome is open"
    )


def _epochs(rows: int, kind: str) -> int:
    """About as many row visits for any size, within bounds: this also bounds what a night costs."""
    return min(MOST_EPOCHS[kind], max(FEWEST_EPOCHS, round(ROW_VISITS[kind] / rows)))


def _batch_size(rows: int, wanted: int) -> int:
    """Small data keeps at least eight steps an epoch: fewer, larger steps measured worse."""
    size = wanted
    while size > 8 and rows / size < 8:
        size //= 2
    return size


def _learning_rate(*, history: bool, large: bool) -> float:
    """Large models move less: the rates were measured on 22 million parameters."""
    rate = 8e-4 if history else 1e-3
    return min(rate, 2e-4) if large else rate
