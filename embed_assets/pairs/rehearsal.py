"""What a night rehearses so as not to forget it: docs of installed packages and the functions they describe.

Training keeps the base model's ranking of them (`training/rehearsal.py`). They are packages that this product brings
along, so that nothing is downloaded, and none of them is the guard's library: the guard stays a judge. Knows nothing
of models and losses.
"""

import logging
from collections.abc import Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import polars as pl

from embed_assets.pairs.corpus import Function, corpus_of
from embed_assets.pairs.guard import documented, parsed, parsed_once, unlike
from embed_assets.pairs.separation import Sketches
from embed_assets.pairs.sources import Proposal
from embed_assets.records import REHEARSAL_SCHEMA, SNIPPET_SCHEMA, Benchmark, digest_of
from embed_assets.snippets.cache import cache_version
from embed_assets.snippets.entries import RepositoryError
from embed_assets.snippets.package_source import open_package

PACKAGES = ("dagster", "networkx", "transformers")
"""Orchestration, algorithms, models: three vocabularies, all of them dependencies of this product or of its own."""
FILES_PER_PACKAGE = 300
"""Parsed of each, the same ones for as long as their names stay."""
ROWS_PER_PACKAGE = 1000
"""Three thousand in all leave a sixth of the forgetting on web queries (docs/experiments.md)."""
TEXT_LENGTH = 300
"""Characters of a function that are rehearsed, some ninety tokens: as good as all of it, at half the cost."""
logger = logging.getLogger(__name__)


def installed_packages() -> tuple[tuple[str, str], ...]:
    """(name, version) of the packages to rehearse that are there."""
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def build_rehearsal(
    proposals: Sequence[Proposal],
    judges: Sequence[Benchmark],
    sketches: Sketches,
    cache: Path,
    *,
    left_out: Collection[str] = (),
) -> pl.DataFrame:
    """The rows to rehearse, REHEARSAL_SCHEMA, the same every night as long as the packages are the same.

    Args:
        proposals: everything of this night, learnt or held out: what resembles it is not rehearsed.
        judges: guard and external sets: what resembles their queries is not rehearsed either.
        sketches: shared with the rest of the night.
        cache: folder that keeps the packages' functions until another version or extractor comes.
        left_out: packages that are learnt from.
    """
    drawn: list[tuple[Function, str]] = []
    for name, number in installed_packages():
        if name not in left_out:
            table = _functions(name, number, cache)
            drawn += documented(corpus_of([table]), ROWS_PER_PACKAGE)
    judged = [
        Proposal(source=judge.name, split="test", query=text, answers=(), repository="", group_id="")
        for judge in judges
        for text in judge.queries["text"].to_list()
    ]
    kept = unlike(drawn, [*proposals, *judged], sketches)
    rows = [{"query": text, "text": function.text[:TEXT_LENGTH]} for function, text in kept]
    return pl.DataFrame(rows, schema=dict(REHEARSAL_SCHEMA))


def _functions(name: str, number: str, cache: Path) -> pl.DataFrame:
    """Functions of an installed package, parsed once for each version and extractor; none if it has no source."""

    def read() -> pl.DataFrame:
        with open_package(name, name) as source:
            return parsed(source, most_files=FILES_PER_PACKAGE)

    try:
        return parsed_once(cache / f"{digest_of(name, number, cache_version())[:16]}.parquet", read)
    except RepositoryError as error:
        logger.warning("not rehearsed: %s", error)
        return pl.DataFrame(schema=dict(SNIPPET_SCHEMA))
