"""A training job: one JSON document that says everything the training process needs to know."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embed_assets.files import read_json
from embed_assets.training.errors import TrainingError
from embed_assets.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What to train on what, and where the result goes. Paths are absolute."""

    candidate_id: str
    input_digest: str
    """Digest of pairs, base model, recipe and code version: the same digest is the same training."""
    output: str
    """The candidate's folder; it must not exist."""
    latest_link: str
    """Link to point at it at the end; none when empty."""
    run_directory: str
    """Where log, curve and progress are written while it runs."""
    progress_file: str
    """Where an interrupted run is saved and found again; none when empty."""
    pairs: str
    pairs_digest: str
    negatives: str = ""
    """File of the functions that do not judge: hard negatives are mined among them, and the lexical teacher ranks them.
    Neither is done when empty."""
    rehearsal: str = ""
    """File of the foreign docs to rehearse; none are when empty."""
    cutoff: int
    max_pairs: int | None = None
    base_name: str
    """As the settings name it."""
    base_alias: str
    base_path: str
    base_revision: str
    base_digest: str
    base_licence: str = ""
    start_from: str = ""
    """Folder whose adapter is continued; training begins with none when empty."""
    start_digest: str = ""
    """Of that adapter, as planned."""
    recipe: Recipe
    expectation: str = ""
    """What may be hoped for from so many rows, in a sentence."""
    max_tokens: int
    device: str
    path: str
    threads: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "recipe": self.recipe.to_json()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "TrainingJob":
        return cls(**{**document, "recipe": Recipe.from_json(document["recipe"])})


def read_job(path: Path) -> TrainingJob:
    """The job in the file `path`.

    Raises:
        TrainingError: it is no training job.
        StoreError: there is no such file, or it is no JSON.
    """
    document = read_json(path)
    try:
        return TrainingJob.from_json(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path} is no training job: {error}") from error
