"""One configuration from three places: `embed_assets.toml`, then environment variables, then one run's overrides.

Every mistake becomes one line that names the key, the value and what is allowed.
"""

import difflib
import functools
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError as PydanticSettingsError
from pydantic_settings.sources import EnvSettingsSource

from embed_assets.settings import (
    ENVIRONMENT_PREFIX,
    ERROR_FILE_VARIABLE,
    TERMINAL_VARIABLE,
    RepositorySettings,
    Section,
    Settings,
    is_local_path,
)

SETTINGS_FILE_VARIABLE = "EMBED_ASSETS_CONFIG"
"""Names the settings file; without it `embed_assets.toml` in the working directory is read, if there is one."""
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

    def named(path: Path | None) -> Path | None:
        return None if path is None else absolute(path)

    repositories = tuple(
        repository.model_copy(
            update={
                "source": str(absolute(repository.source)) if is_local_path(repository.source) else repository.source,
                "issues": named(repository.issues),
            }
        )
        for repository in settings.repositories
    )
    pairs = settings.pairs.model_copy(
        update={
            "queries_file": named(settings.pairs.queries_file),
            "external_sets": tuple(absolute(folder) for folder in settings.pairs.external_sets),
            "guard_set": named(settings.pairs.guard_set),
        }
    )
    training = settings.training.model_copy(update={"start_from": named(settings.training.start_from)})
    changed = {"repositories": repositories, "pairs": pairs, "training": training}
    return settings.model_copy(update={"data_dir": absolute(settings.data_dir), **changed})


def settings_file(file: Path | None = None) -> Path | None:
    """The file that `load_settings` reads: the argument, the variable, or the working directory's, in this order."""
    named = file or (Path(os.environ[SETTINGS_FILE_VARIABLE]) if os.environ.get(SETTINGS_FILE_VARIABLE) else None)
    if named is not None:
        return named.expanduser().resolve()
    default = Path.cwd() / DEFAULT_FILE
    return default if default.exists() else None


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
