"""One typed configuration: `embed_assets.toml`, then environment variables, then one run's overrides.

Every value has a default. An unset dial of `training` means derived from the data and the device, not fixed.
Environment variables are `EMBED_ASSETS_` and the key, sections joined by two underscores:
`EMBED_ASSETS_TRAINING__EPOCHS=2`. Secrets come from the environment only: `EMBED_ASSETS_ADMIN_TOKEN`,
`EMBED_ASSETS_API_KEY`, `EMBED_ASSETS_ALERTS__WEBHOOK_URL`.
"""

import difflib
import functools
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as PydanticSettingsError
from pydantic_settings.sources import EnvSettingsSource

ENVIRONMENT_PREFIX = "EMBED_ASSETS_"
SETTINGS_FILE_VARIABLE = "EMBED_ASSETS_CONFIG"
"""Names the settings file; without it `embed_assets.toml` in the working directory is read, if there is one."""
TERMINAL_VARIABLE = "EMBED_ASSETS_TERMINAL"
"""Device of the terminal that the parent runs on, such as /dev/pts/3; set by the command line."""
ERROR_FILE_VARIABLE = "EMBED_ASSETS_ERROR_FILE"
"""Where the parent of a stage's process wants to read why it failed."""
PLAIN_VARIABLES = (
    "EMBED_ASSETS_ADMIN_TOKEN",
    "EMBED_ASSETS_API_KEY",
    "EMBED_ASSETS_SERVICE_URL",
    TERMINAL_VARIABLE,
    ERROR_FILE_VARIABLE,
)
"""Variables that are read where they are needed and are no settings: secrets, and what a parent tells its child."""
DEFAULT_FILE = "embed_assets.toml"


class SettingsError(ValueError):
    """The settings file, the environment or a run's overrides hold an unknown key or a bad value."""


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


def load_settings(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Reads the settings file and the environment, then applies `overrides` (dotted key -> value; None is skipped).

    Raises:
        SettingsError: one line naming the key, the value found and what is allowed.
    """
    path = settings_file(file)
    document: dict[str, Any] = {}
    if path is not None:
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SettingsError(f"settings file {path} does not exist; write one with `embed-assets init`") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"settings file {path} cannot be read: {error}") from error
    _refuse_unknown_variables()
    try:
        _merge(document, EnvSettingsSource(Settings)())
        for key, value in (overrides or {}).items():
            if value is not None:
                *sections, last = key.split(".")
                _merge(document, functools.reduce(lambda inner, name: {name: inner}, reversed(sections), {last: value}))
        settings = Settings(**document)
    except ValidationError as error:
        raise SettingsError(_one_line(error, path, overrides or {})) from error
    except PydanticSettingsError as error:
        raise SettingsError(f"bad value in the environment: {error}; sections and lists are written as JSON") from error
    return _anchored(settings, path.parent if path is not None else Path.cwd())


def _anchored(settings: Settings, root: Path) -> Settings:
    """Relative paths of the settings count from the settings file's folder."""

    def absolute(path: str | Path) -> Path:
        return (root / Path(path).expanduser()).resolve()

    repositories = tuple(
        repository.model_copy(
            update={
                "source": str(absolute(repository.source)) if is_local_path(repository.source) else repository.source,
                "issues": absolute(repository.issues) if repository.issues is not None else None,
            }
        )
        for repository in settings.repositories
    )
    queries = settings.pairs.queries_file
    pairs = settings.pairs.model_copy(update={"queries_file": absolute(queries) if queries is not None else None})
    start = settings.training.start_from
    training = settings.training.model_copy(update={"start_from": absolute(start) if start is not None else None})
    changed = {"repositories": repositories, "pairs": pairs, "training": training}
    return settings.model_copy(update={"data_dir": absolute(settings.data_dir), **changed})


def settings_file(file: Path | None = None) -> Path | None:
    """The file that `load_settings` reads: the argument, the variable, or the working directory's, in this order."""
    named = file or (Path(os.environ[SETTINGS_FILE_VARIABLE]) if os.environ.get(SETTINGS_FILE_VARIABLE) else None)
    if named is not None:
        return named.expanduser().resolve()
    default = Path.cwd() / DEFAULT_FILE
    return default if default.exists() else None


def derived_name(source: str) -> str:
    """`https://host/team/shop.git` -> `shop`, `package:networkx` -> `networkx`, `.` -> the folder's name."""
    last = source.removeprefix("package:").rstrip("/").replace(":", "/").rsplit("/", 1)[-1].removesuffix(".git")
    if last in ("", ".", "..", "~"):
        last = Path(source).expanduser().resolve().name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip(".-") or "repository"


def is_local_path(source: str) -> bool:
    """Whether a repository's source is a path, rather than a URL, `host:path`, or `package:NAME`."""
    return "://" not in source and not re.match(r"^[^/.~][^/]*:", source)


def setting_keys(section: type[BaseModel] = Settings, prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting by its dotted key, sections flattened; `repositories` is one key."""
    keys: dict[str, FieldInfo] = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys |= setting_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys[f"{prefix}{name}"] = field
    return keys


def _merge(document: dict[str, Any], update: Mapping[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(document.get(key), dict):
            _merge(document[key], value)
        else:
            document[key] = value


def _refuse_unknown_variables() -> None:
    known = {f"{ENVIRONMENT_PREFIX}{key.replace('.', '__')}".upper() for key in setting_keys()}
    known |= {f"{ENVIRONMENT_PREFIX}{name}".upper() for name in Settings.model_fields}
    known |= {SETTINGS_FILE_VARIABLE, *PLAIN_VARIABLES}
    for variable, value in os.environ.items():
        if variable.upper().startswith(ENVIRONMENT_PREFIX) and variable.upper() not in known:
            shown = value if len(value) <= 40 else f"{value[:37]}..."
            nearest = difflib.get_close_matches(variable.upper(), sorted(known), n=4, cutoff=0.3)
            raise SettingsError(
                f"unknown environment variable {variable}={shown}; allowed: {ENVIRONMENT_PREFIX}SECTION__KEY with "
                f"a key of the settings file, nearest are {', '.join(nearest)}"
            )


def _one_line(error: ValidationError, path: Path | None, overrides: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    where = _origin(key, path, overrides)
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(_allowed_keys(first["loc"]))
        return f"unknown setting {key} = {first['input']!r}{where}; allowed here: {allowed}"
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "allowed:")
    if not key:
        return f"bad settings{where}: {message}"
    if not message.startswith("allowed:"):
        message = message[0].lower() + message[1:]
    shown = "" if first["type"] == "missing" else f" = {first['input']!r}"
    return f"bad value for setting {key}{shown}{where}; {message}"


def _origin(key: str, path: Path | None, overrides: Mapping[str, Any]) -> str:
    """Where a value came from, of the places that can give one the last that did."""
    variable = f"{ENVIRONMENT_PREFIX}{key.replace('.', '__')}".upper()
    if overrides.get(key) is not None:
        return " of this run"
    if any(name.upper() == variable and value for name, value in os.environ.items()):
        return f" in {variable}"
    return f" in {path}" if path is not None else ""


def _allowed_keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Settings
    for part in location[:-1]:
        if isinstance(part, int):
            section = RepositorySettings
            continue
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
    return sorted(section.model_fields)
