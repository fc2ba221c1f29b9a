"""Runs one job of a stage in a process of its own, so that torch's memory, a crash or a cancel stay there."""

import sys
import warnings
from typing import Protocol

import dagster as dg

from embed_assets.files import write_json
from embed_assets.settings import ERROR_FILE_VARIABLE
from embed_assets.store import Store


class Job(Protocol):
    """What a stage's entry point reads: one JSON document."""

    @property
    def candidate_id(self) -> str: ...

    def to_json(self) -> dict[str, object]: ...


def run_in_child(
    module: str, job: Job, *, context: dg.AssetExecutionContext, client: dg.PipesSubprocessClient, store: Store
) -> None:
    """Writes the job under `runs/`, runs `python -m module JOB` to its end, and passes on its log and its cancel.

    Raises:
        dagster.Failure: the process ended with an error; what it said last is part of the message.
    """
    directory = store.runs / job.candidate_id
    name = module.rsplit(".", 1)[-1]
    path = directory / f"{name}.job.json"
    write_json(path, job.to_json())
    errors = directory / f"{name}.error"
    errors.unlink(missing_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # Dagster warns of what its own client uses
            client.run(
                command=[sys.executable, "-m", module, str(path)],
                context=context,
                env={ERROR_FILE_VARIABLE: str(errors)},
            )
    except Exception as error:
        said = errors.read_text(encoding="utf-8").strip() if errors.exists() else _last_words(name, error)
        raise dg.Failure(
            description=said, metadata={"job": dg.MetadataValue.path(str(path))}, allow_retries=False
        ) from error


def _last_words(name: str, error: Exception) -> str:
    """A process that could not say why it ended was ended from outside, as a rule by the kernel for lack of memory."""
    return (
        f"the {name} process ended without a reason of its own ({error}); if it was killed for lack of memory (dmesg "
        "says so), lower model.max_tokens, or train a smaller model"
    )
