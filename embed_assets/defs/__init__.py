"""The thin shell around the stages that Dagster loads: assets, checks, jobs, schedules, sensors."""
