"""What a night reads: repositories that may fail, their histories, and their trees at T.

A repository that cannot be read is named, and the night goes on without it. Knows nothing of sides beyond T, and
nothing of pairs.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import polars as pl

from embed_assets.checkpoints.warm_start import WarmStart
from embed_assets.pairs.changes import CommitQuery, commit_queries
from embed_assets.pairs.history import History, read_history
from embed_assets.pairs.manifest import PairsError
from embed_assets.pairs.sides import Sides
from embed_assets.pairs.sources import AnsweredIssue
from embed_assets.pairs.written import answered_issues
from embed_assets.records import SNIPPET_SCHEMA
from embed_assets.settings import RepositorySettings, Settings
from embed_assets.snippets.entries import RepositoryError
from embed_assets.snippets.git_source import GitSource
from embed_assets.snippets.repositories import Source, open_source
from embed_assets.snippets.tree import snippets_at, tree_filter
from embed_assets.store import Store

FUTURE_SECONDS = 86_400
"""Commits dated further ahead than a day have a wrong clock, and would freeze the cut-off in the future."""


@dataclass
class Night:
    """What one build gathers on its way."""

    settings: Settings
    store: Store
    now: int
    start: WarmStart | None = None
    """What the training will start from: what it has learnt is not asked."""
    dropped: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 3)

    @contextmanager
    def reading(self, repository: str) -> Iterator[None]:
        """A repository that cannot be read is named in `failed`; the night goes on without it."""
        try:
            yield
        except RepositoryError as error:
            self.failed[repository] = str(error)

    def require(self, readable: Sized) -> None:
        """
        Raises:
            PairsError: no repository is left.
        """
        if not readable:
            reasons = " | ".join(f"{name}: {reason}" for name, reason in self.failed.items())
            raise PairsError(f"no repository can be read, so there are no pairs. {reasons}")


@dataclass(frozen=True, kw_only=True)
class ReadRepository:
    """An open source, and the queries of its history; without history both are empty."""

    settings: RepositorySettings
    source: Source
    history: History | None = None
    queries: tuple[CommitQuery, ...] = ()
    issues: tuple[AnsweredIssue, ...] = ()


def open_all(night: Night, stack: ExitStack) -> list[tuple[RepositorySettings, Source]]:
    sources = []
    for repository in night.settings.repositories:
        with night.reading(repository.name):
            source = open_source(repository, night.store)
            stack.callback(source.close)
            night.notes += [source.notice] if source.notice else []
            sources.append((repository, source))
    night.require(sources)
    return sources


def with_histories(night: Night, sources: list[tuple[RepositorySettings, Source]]) -> list[ReadRepository]:
    repositories = []
    with night.step("history"):
        for repository, source in sources:
            with night.reading(repository.name):
                repositories.append(_with_history(night, repository, source))
    night.require(repositories)
    return repositories


def trees_at(night: Night, repositories: list[ReadRepository], sides: Sides) -> dict[str, pl.DataFrame]:
    """Repository -> its tree at T, of those that can be read."""
    trees = {}
    with night.step("trees"):
        for repository in repositories:
            with night.reading(repository.settings.name):
                trees[repository.settings.name] = _tree(night, repository, sides)
    night.require(trees)
    return trees


def _with_history(night: Night, repository: RepositorySettings, source: Source) -> ReadRepository:
    weights = night.settings.pairs.sources
    issues_file = repository.issues if weights.get("issue", 1.0) else None
    if not isinstance(source, GitSource) or not repository.history or not (weights.get("commit") or issues_file):
        return ReadRepository(settings=repository, source=source)
    history = read_history(source, max_commits=night.settings.pairs.max_commits)
    paths, cache = tree_filter(source, source.entries()), night.store.pairs_dir / "changes"
    queries: list[CommitQuery] = []
    issues: list[AnsweredIssue] = []
    if weights.get("commit"):
        queries = commit_queries(source, history, paths=paths, cache=cache, dropped=night.dropped)
    if issues_file is not None:
        issues = answered_issues(source, history, issues_file, paths=paths, cache=cache, dropped=night.dropped)
    dated = [query for query in queries if query.commit.committed_at <= night.now + FUTURE_SECONDS]
    night.dropped["commit_dated_in_future"] += len(queries) - len(dated)
    return ReadRepository(
        settings=repository, source=source, history=history, queries=tuple(dated), issues=tuple(issues)
    )


def _tree(night: Night, repository: ReadRepository, sides: Sides) -> pl.DataFrame:
    """The tree at T; as it is where there is no history. A history that begins after T has no tree yet."""
    source, revision = repository.source, ""
    if repository.history is not None and sides.cutoff:
        assert isinstance(source, GitSource)
        revision = source.commit_at(sides.cutoff)
        if not revision:
            night.notes.append(f"{source.name} has no commit before the cut-off; it is learnt from once T moves on")
            return pl.DataFrame(schema=dict(SNIPPET_SCHEMA))
    table, _ = snippets_at(source, night.store, revision, notices=night.notes)
    return table
