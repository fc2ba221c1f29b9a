"""The trainer alone: pairs from anywhere in, a folder with adapter, model and curve out. Nothing is promoted."""

import tempfile
from pathlib import Path
from typing import Any

from embed_assets.files import StoreError, file_sha256
from embed_assets.settings import Settings
from embed_assets.training.candidate import run_job
from embed_assets.training.plan import build_job
from embed_assets.training.report import Reporter


def train_to_directory(settings: Settings, pairs: Path, output_directory: Path) -> dict[str, Any]:
    """Trains on the pairs file (parquet or JSON lines) and returns what was written as training.json.

    Raises:
        TrainingError: the pairs or the run are unsound.
        ModelError: the base model is not there or cannot be used.
        StoreError: the output folder exists already.
    """
    if output_directory.exists():
        raise StoreError(f"{output_directory} exists already; name a folder that does not")
    output_directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="embed-assets-") as runs:
        job = build_job(
            settings,
            pairs=pairs,
            pairs_digest=file_sha256(pairs)[:40] if pairs.is_file() else "",
            cutoff=0,
            candidates=output_directory.parent,
            runs=Path(runs),
            max_pairs=settings.pairs.max_pairs,
            output=output_directory,
        )
        with Reporter.for_this_process() as reporter:
            return run_job(job, reporter.observe)
