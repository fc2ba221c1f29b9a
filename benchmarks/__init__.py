"""Programs that measure embed_assets against its peers, both sides in one run. Reports: benchmarks/reports/."""
