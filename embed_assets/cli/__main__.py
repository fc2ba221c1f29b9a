"""`python -m embed_assets.cli` is `embed-assets`."""

from embed_assets.cli.app import main

main()
