"""Every path under the data directory. How files are written there is `files`' matter.

data/
  dagster/                    DAGSTER_HOME: dagster.yaml (a link to the project's), runs, events, logs
  repositories/NAME.git       bare mirrors of repositories given by URL
  snippets/
    cache/                    parsed definitions by git blob id and extractor version
    snippets.parquet          SNIPPET_SCHEMA
    snippets.json             counts, dropped by reason, commit and digest of each repository
  pairs/
    pairs.parquet             PAIR_SCHEMA, all splits
    train.jsonl validation.jsonl test.jsonl
    pairs.json                cut-off, counts, dropped by reason, digests
    splits.json               the sticky cut-off T
    negatives.parquet         NEGATIVE_SCHEMA: what hard negatives are mined among, and the teacher ranks
    rehearsal.parquet         REHEARSAL_SCHEMA: what training keeps as the base model ranks it
    copies.json               definition_id of every copy -> the document that stands for it
    learnt.txt                digests of all queries that were ever learnt
    changes/ guard/ rehearsal/  parsed histories and libraries; made again where they are missing
  benchmarks/DIGEST/          corpus.parquet queries.parquet qrels.tsv benchmark.json (written last)
  benchmarks/current          relative link: the benchmark of the latest pairs
  benchmarks/guard            relative link: the guard against forgetting
  benchmarks/external-NAME    relative links: external sets, measured beside the benchmark
  vectors/SPACE_ID/           embedded corpora, by digest of their texts
  candidates/ID/
    adapter/                  PEFT LoRA
    model/                    merged weights in sentence-transformers layout: the artifact that would be served
    curve.jsonl               one line per logged step
    training.json             recipe, pairs digest, cut-off, seconds (written after adapter and model)
    report.json               RecallReport (written last)
    verdict.json              what the gate said of it
  candidates/latest           relative link
  models/checkpoints/ID/      immutable: model files, adapter/, golden.safetensors, report.json, manifest.json
  models/checkpoint-latest    relative link, replaced atomically: the only desired state
  models/history.jsonl        promotions and rollbacks, in order
  service/
    service.json              URL, process id and admin token of the running service, mode 0600
    live.json                 the service's own word on what it serves
  alerts/RUN_ID               markers: this night has been told
  runs/ID/                    logs and time series of training processes
"""

from dataclasses import dataclass
from pathlib import Path

from embed_assets.files import StoreError


@dataclass(frozen=True)
class Store:
    """The data directory's layout. Paths only: nothing is created until something is written."""

    root: Path

    @property
    def dagster_home(self) -> Path:
        return self.root / "dagster"

    @property
    def repositories(self) -> Path:
        return self.root / "repositories"

    @property
    def snippets(self) -> Path:
        return self.root / "snippets" / "snippets.parquet"

    @property
    def snippets_manifest(self) -> Path:
        return self.root / "snippets" / "snippets.json"

    @property
    def snippet_cache(self) -> Path:
        return self.root / "snippets" / "cache"

    @property
    def pairs_dir(self) -> Path:
        return self.root / "pairs"

    @property
    def pairs(self) -> Path:
        return self.pairs_dir / "pairs.parquet"

    @property
    def pairs_manifest(self) -> Path:
        return self.pairs_dir / "pairs.json"

    @property
    def pairs_copies(self) -> Path:
        return self.pairs_dir / "copies.json"

    @property
    def pairs_negatives(self) -> Path:
        return self.pairs_dir / "negatives.parquet"

    @property
    def pairs_rehearsal(self) -> Path:
        return self.pairs_dir / "rehearsal.parquet"

    @property
    def splits(self) -> Path:
        return self.pairs_dir / "splits.json"

    @property
    def benchmarks(self) -> Path:
        return self.root / "benchmarks"

    @property
    def current_benchmark(self) -> Path:
        return self.benchmarks / "current"

    @property
    def guard_benchmark(self) -> Path:
        return self.benchmarks / "guard"

    def external_benchmark(self, name: str) -> Path:
        """The link to an external set's benchmark."""
        return self.benchmarks / f"external-{_plain_name(name)}"

    @property
    def external_benchmarks(self) -> list[Path]:
        """The links that are there, by name."""
        return sorted(path for path in self.benchmarks.glob("external-*") if path.is_symlink())

    @property
    def vectors(self) -> Path:
        return self.root / "vectors"

    @property
    def candidates(self) -> Path:
        return self.root / "candidates"

    @property
    def latest_candidate(self) -> Path:
        return self.candidates / "latest"

    def candidate(self, candidate_id: str) -> Path:
        return self.candidates / _plain_name(candidate_id)

    @property
    def checkpoints(self) -> Path:
        return self.root / "models" / "checkpoints"

    def checkpoint(self, checkpoint_id: str) -> Path:
        return self.checkpoints / _plain_name(checkpoint_id)

    @property
    def checkpoint_latest(self) -> Path:
        return self.root / "models" / "checkpoint-latest"

    def live_checkpoint(self) -> Path | None:
        """The checkpoint that `checkpoint-latest` points to; None while nothing is promoted.

        Raises:
            StoreError: the pointer is no link, dangles, or leads out of the folder of checkpoints.
        """
        link = self.checkpoint_latest
        if not link.is_symlink():
            if link.exists():
                raise StoreError(f"{link} is no symbolic link; move it away, then `embed-assets rollback --to ID`")
            return None
        target = link.resolve()
        if target.parent != self.checkpoints.resolve():
            raise StoreError(f"{link} points to {target}, outside {self.checkpoints}; `embed-assets rollback --to ID`")
        if not target.is_dir():
            raise StoreError(f"{link} points to {target.name}, which does not exist; `embed-assets rollback --to ID`")
        return self.checkpoint(target.name)

    @property
    def history(self) -> Path:
        return self.root / "models" / "history.jsonl"

    @property
    def service(self) -> Path:
        return self.root / "service" / "service.json"

    @property
    def live(self) -> Path:
        return self.root / "service" / "live.json"

    @property
    def alerts(self) -> Path:
        return self.root / "alerts"

    @property
    def runs(self) -> Path:
        return self.root / "runs"


def _plain_name(name: str) -> str:
    """A file name that cannot leave its folder.

    Raises:
        StoreError: the name is empty, hidden, or holds anything but letters, digits, dot, dash and underscore.
    """
    if not name or name.startswith(".") or any(not (ch.isalnum() or ch in "._-") for ch in name):
        raise StoreError(f"{name!r} is no id: allowed are letters, digits, dot, dash and underscore")
    return name
