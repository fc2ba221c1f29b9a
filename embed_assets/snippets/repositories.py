"""Opens whatever the settings call a repository: a local git repository, a URL, or an installed package.

Knows nothing of languages and snippets.
"""

from pathlib import Path

from embed_assets.settings import RepositorySettings, is_local_path
from embed_assets.snippets.entries import Entry, RepositoryError
from embed_assets.snippets.git_source import GitSource, open_repository, refuse_shallow
from embed_assets.snippets.mirror import open_mirror, without_password
from embed_assets.snippets.package_source import PackageSource, open_package
from embed_assets.store import Store

__all__ = ["Entry", "GitSource", "PackageSource", "RepositoryError", "Source", "open_source"]

PACKAGE_PREFIX = "package:"

Source = GitSource | PackageSource


def open_source(settings: RepositorySettings, store: Store) -> Source:
    """Opens one configured repository; a URL is cloned or fetched first.

    Raises:
        RepositoryError: it cannot be read, and why: no such path, not a repository, unknown branch, empty history,
            shallow clone, failed clone, package not installed, git missing.
    """
    source = settings.source
    if source.startswith(PACKAGE_PREFIX):
        if settings.branch:
            raise RepositoryError(f"{source}: an installed package has no branches; remove `branch`")
        package = open_package(source.removeprefix(PACKAGE_PREFIX), settings.name)
        package.include, package.exclude = settings.include, settings.exclude
        return package
    if source.startswith("-"):
        raise RepositoryError(f"{source!r} is neither a path nor a URL")
    if is_local_path(source):
        repo, notice, location = open_repository(Path(source).expanduser(), source), "", source
    else:
        repo, notice = open_mirror(source, settings.name, store)
        location = without_password(source)
    opened = GitSource(name=settings.name, location=location, repo=repo, branch=settings.branch, notice=notice)
    opened.include, opened.exclude = settings.include, settings.exclude
    if settings.history:
        refuse_shallow(opened)
    return opened
