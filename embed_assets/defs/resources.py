"""What assets get handed by Dagster: the settings and the store, read anew in every step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from embed_assets.settings import Settings
from embed_assets.settings_loading import load_settings
from embed_assets.store import Store


class Project(dg.ConfigurableResource[None]):
    """The team's settings and data directory."""

    settings_file: str = ""
    """Path of the settings file; empty means EMBED_ASSETS_CONFIG, then embed_assets.toml in the working directory."""

    def settings(self, overrides: Mapping[str, Any] | None = None) -> Settings:
        """The settings with one run's overrides (dotted key -> value).

        Raises:
            SettingsError: an unknown key or a bad value.
        """
        return load_settings(Path(self.settings_file) if self.settings_file else None, overrides)

    @property
    def store(self) -> Store:
        return Store(self.settings().data_dir)
