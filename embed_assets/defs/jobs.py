"""The job that a night is: all five assets with their checks."""

import dagster as dg

from embed_assets.defs.assets import ASSETS

nightly = dg.define_asset_job(
    "nightly",
    selection=dg.AssetSelection.assets(*ASSETS),
    description="doctor -> snippets -> pairs -> adapter -> gate -> checkpoint -> reload",
    tags={"dagster/max_retries": "0"},
)
