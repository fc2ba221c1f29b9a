"""When the night begins."""

import dagster as dg

from embed_assets.defs.jobs import nightly
from embed_assets.settings import ScheduleSettings


def nightly_schedule(settings: ScheduleSettings) -> dg.ScheduleDefinition:
    """The daily schedule in the team's time zone; running as soon as the daemon sees it, unless switched off."""
    return dg.ScheduleDefinition(
        name="nightly_schedule",
        job=nightly,
        cron_schedule=settings.cron,
        execution_timezone=settings.time_zone,
        default_status=dg.DefaultScheduleStatus.RUNNING if settings.enabled else dg.DefaultScheduleStatus.STOPPED,
        description="Learns from the team's code every night; the gate decides whether anything changes.",
    )
