"""What Dagster loads. It imports no torch: a code location is there in about two seconds."""

import dagster as dg

from embed_assets.defs.assets import ASSETS
from embed_assets.defs.checks import CHECKS
from embed_assets.defs.jobs import nightly
from embed_assets.defs.resources import Project
from embed_assets.defs.schedules import nightly_schedule
from embed_assets.defs.sensors import SENSORS
from embed_assets.defs.terminal import terminal_logger

project = Project()

defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=CHECKS,
    jobs=[nightly],
    schedules=[nightly_schedule(project.settings().schedule)],
    sensors=SENSORS,
    resources={"project": project, "child": dg.PipesSubprocessClient()},
    loggers={"console": dg.colored_console_logger, "terminal": terminal_logger},
)
