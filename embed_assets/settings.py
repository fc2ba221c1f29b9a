"""All that can be set, typed; `settings_loading` reads it from file and environment.

Every value has a default. An unset dial of `training` means derived from the data and the device, not fixed.
Environment variables are `EMBED_ASSETS_` and the key, sections joined by two underscores:
`EMBED_ASSETS_TRAINING__EPOCHS=2`. Secrets come from the environment only: `EMBED_ASSETS_ADMIN_TOKEN`,
`EMBED_ASSETS_API_KEY`, `EMBED_ASSETS_ALERTS__WEBHOOK_URL`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ENVIRONMENT_PREFIX = "EMBED_ASSETS_"
TERMINAL_VARIABLE = "EMBED_ASSETS_TERMINAL"
"""Device of the terminal that the parent runs on, such as /dev/pts/3; set by the command line."""
ERROR_FILE_VARIABLE = "EMBED_ASSETS_ERROR_FILE"
"""Where the parent of a stage's process wants to read why it failed."""


class Section(BaseModel):
    """A table of the settings file: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RepositorySettings(Section):
    """One source of code."""

    source: str = Field(min_length=1)
    """A git work tree or bare repository, a URL that git can clone, or `package:NAME`, an installed package."""
    name: str = ""
    """How reports call it; derived from `source` when empty."""
    branch: str = ""
    """Branch or tag to read; the repository's HEAD when empty."""
    include: tuple[str, ...] = ()
    """Globs on paths in the tree; empty means every file of a known language."""
    exclude: tuple[str, ...] = ()
    """Globs on paths in the tree to leave out, on top of vendored, generated and oversized files."""
    history: bool = True
    """Learn from commit messages too."""
    issues: Path | None = None
    """A JSON-lines file of issues or pull requests: id, title, body, commits."""

    @model_validator(mode="before")
    @classmethod
    def _derive_name(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and not values.get("name") and isinstance(values.get("source"), str):
            return {**values, "name": derived_name(values["source"])}
        return values


class ModelSettings(Section):
    """The base model to fine-tune."""

    name: str = "minilm"
    """An alias of the catalogue (minilm, qodo, jina-v3, e5-large), a path, or a name on the model hub."""
    revision: str = ""
    """Commit on the hub; the catalogue's pinned one when empty."""
    max_tokens: int | None = Field(default=None, ge=8, le=32768)
    """Longest input in tokens; the catalogue's value when unset."""


class PairsSettings(Section):
    """What becomes a training or held-out row."""

    sources: dict[str, float] = Field(default_factory=lambda: {"docstring": 1.0, "commit": 1.0})
    """Source of pairs -> weight of its rows in the loss; leave a source out to switch it off."""
    max_pairs: int | None = Field(default=None, ge=1)
    """At most so many training rows, newest first; all of them when unset."""
    max_commits: int = Field(default=20_000, ge=1)
    """Read at most so many of the newest commits of each repository."""
    test_queries: int = Field(default=300, ge=20)
    """Aim for so many held-out commit queries; they are frozen until a tenth of them can be renewed."""
    hard_negatives: int = Field(default=1, ge=0, le=15)
    """Negatives of each training row: of its file first, then by words."""
    queries_file: Path | None = None
    """A JSON-lines file of queries written elsewhere: query, repository, path, name, scope."""
    external_sets: tuple[Path, ...] = ()
    """Folders in BEIR's format whose queries are reported beside the held-out ones; they decide nothing."""
    guard_set: Path | None = None
    """A folder in BEIR's format that guards against forgetting in the standard library's place."""
    guard_queries: int = Field(default=1000, ge=200)
    """Queries of the guard against forgetting, on twice as many functions; fewer embed faster and prove less."""


class TrainingSettings(Section):
    """Fine-tuning. An unset dial is derived from the number of pairs, the model and the device."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; `auto` takes CUDA, then Metal (mps), then the CPU."""
    path: Literal["auto", "padded", "flat", "packed", "fused"] = "auto"
    """How batches run through the model; `auto` picks the fastest that the device and the model allow."""
    epochs: int | None = Field(default=None, ge=1, le=1000)
    """Passes over the training pairs."""
    batch_size: int | None = Field(default=None, ge=2, le=65536)
    """Rows whose positives are each other's negatives."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Peak of the schedule, after warm-up."""
    temperature: float = Field(default=0.05, gt=0, le=10)
    """Of the InfoNCE loss: similarities are divided by it."""
    lora_rank: int | None = Field(default=None, ge=1, le=1024)
    """Rank of the adapter's matrices."""
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW, on the adapter's weights."""
    delta_scale: float | None = Field(default=None, gt=0, le=1)
    """Share of the learnt change that is merged: below 1 trades gain for less forgetting."""
    rehearsal_weight: float | None = Field(default=None, ge=0)
    """Of the loss that keeps the base model's ranking of foreign docs; 0 switches it off."""
    lexical_share: float | None = Field(default=None, ge=0, le=1)
    """Of a lexical teacher in the loss of a row, beside its label; 0 switches it off."""
    seed: int = 42
    """Same inputs, same seed, same adapter."""
    start_from: Path | None = None
    """Folder of another store's checkpoint or candidate whose adapter this training continues; none when unset."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; all cores when unset."""


class GateSettings(Section):
    """When a candidate may replace the live model (docs/gate.md)."""

    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Level of the one-sided paired randomisation test, before it is divided by the attempt."""
    minimum_gain: float = Field(default=0.005, ge=0, le=1)
    """Smallest gain of mean reciprocal rank@10 worth a promotion, as a share (0.005 is half a point)."""
    minimum_commit_queries: int = Field(default=150, ge=1)
    """From it on commit queries decide alone, below it together with docstring queries."""
    minimum_queries: int = Field(default=30, ge=1)
    """With fewer than this, of both kinds together or on the guard, nothing is promoted."""
    guard_margin: float = Field(default=0.02, ge=0, le=1)
    """Largest loss of mean reciprocal rank@10 on the guard set, as a share."""
    recall_tolerance: float = Field(default=0.0, ge=0, le=1)
    """How far recall@10 may fall, as a share."""


class RetentionSettings(Section):
    """How much of the past stays on disk. Reports, verdicts and the history always do (docs/checkpoints.md)."""

    checkpoints: int = Field(default=5, ge=0)
    """Checkpoints kept for a rollback, newest first, besides the live one and the one before it."""
    candidates: int = Field(default=3, ge=1)
    """Candidates whose weights are kept, newest first."""


class ServingSettings(Section):
    """The live embedder."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback wants EMBED_ASSETS_API_KEY."""
    port: int = Field(default=8756, ge=0, le=65535)
    """0 picks a free port."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to embed; `auto` takes CUDA, then Metal (mps), then the CPU."""
    max_inputs: int = Field(default=2048, ge=1)
    """Inputs of one request."""
    max_request_tokens: int = Field(default=300_000, ge=1)
    """Tokens of one request, all inputs together."""
    drain_seconds: float = Field(default=30.0, ge=0)
    """How long a replaced model may finish its requests."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; all cores when unset."""


class ScheduleSettings(Section):
    """When the night begins."""

    cron: str = "0 2 * * *"
    """Five cron fields; daily at 02:00."""
    time_zone: str = "UTC"
    """Name in the IANA time zone database that the cron fields are read in."""
    enabled: bool = True
    """Whether the schedule runs as soon as the daemon does."""

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("allowed: a name of the IANA time zone database, such as UTC or Europe/Berlin")
        ZoneInfo(value)
        return value

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        if len(value.split()) != 5:
            raise ValueError("allowed: five cron fields, such as '0 2 * * *'")
        return value


class AlertSettings(Section):
    """Who hears of a failed check or run."""

    webhook_url: str = ""
    """Receives a POST with a JSON body (`text` as Slack reads it, and fields); nothing is sent when empty."""
    timeout_seconds: float = Field(default=10.0, gt=0)
    """How long the webhook may take."""


class Settings(BaseSettings):
    """All of it. Build one with `load_settings`, which turns every mistake into one `SettingsError`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    data_dir: Path = Path("data")
    """Where all state lies; a relative path counts from the settings file's folder."""
    repositories: tuple[RepositorySettings, ...] = ()
    model: ModelSettings = ModelSettings()
    pairs: PairsSettings = PairsSettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()
    retention: RetentionSettings = RetentionSettings()
    serving: ServingSettings = ServingSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    alerts: AlertSettings = AlertSettings()

    @model_validator(mode="after")
    def _distinct_names(self) -> "Settings":
        names = [repository.name for repository in self.repositories]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two repositories are called {name!r}; set a different `name` for one of them")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only keyword arguments: `load_settings` has merged file, environment and overrides by then."""
        return (init_settings,)


def derived_name(source: str) -> str:
    """`https://host/team/shop.git` -> `shop`, `package:networkx` -> `networkx`, `.` -> the folder's name."""
    last = source.removeprefix("package:").rstrip("/").replace(":", "/").rsplit("/", 1)[-1].removesuffix(".git")
    if last in ("", ".", "..", "~"):
        last = Path(source).expanduser().resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip(".-") or "repository"


def is_local_path(source: str) -> bool:
    """Whether a repository's source is a path, rather than a URL, `host:path`, or `package:NAME`."""
    return "://" not in source and not re.match(r"^[^/.~][^/]*:", source)
