"""Two nights on real code with the real model, run once: a good one, and one on shuffled positives after it."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.repositories import commit_all, package_repository
from tests.e2e.team import Team
from tests.webhook import Webhook, listening

SMALL = """
[model]
max_tokens = 48

[pairs]
guard_queries = 200
hard_negatives = 0

[training]
epochs = 2

[alerts]
webhook_url = "{url}"
"""
QUESTION = "shortest path between two nodes"


@dataclass(frozen=True)
class Night:
    """A night of `embed-assets run`, and what the service answered before and after it."""

    team: Team
    done: "subprocess.CompletedProcess[str]"
    served_before: str
    served_after: str
    told: tuple[dict[str, object], ...]
    """What reached the webhook."""


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    with listening() as server:
        yield server


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`code`, which teaches; `shuffled/code`, which mis-teaches; and four that cannot be read."""
    root = tmp_path_factory.mktemp("sources")
    package_repository(root / "code", "networkx", most_files=80)
    package_repository(root / "shuffled" / "code", "networkx", most_files=80, shuffled=True)
    (root / "notes").mkdir()
    for name in ("empty", "deep", "branchless"):
        subprocess.run(["git", "init", "-q", "-b", "main", str(root / name)], check=True)
    for name in ("deep", "branchless"):
        for number in range(2):
            (root / name / "file.py").write_text(f"x = {number}\n", encoding="utf-8")
            commit_all(root / name, f"Count to {number}")
    cloned = ["git", "clone", "-q", "--depth", "1", f"file://{root / 'deep'}", str(root / "shallow")]
    subprocess.run(cloned, check=True, capture_output=True)
    return root


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory, sources: Path, webhook: Webhook) -> Night:
    """The base model is live; the night learns from one good repository among four bad ones."""
    team = Team(tmp_path_factory.mktemp("team") / "good")
    team.root.mkdir()
    bad = [(sources / name, "") for name in ("notes", "empty", "shallow")]
    repositories = [(sources / "code", ""), *bad, (sources / "branchless", "release")]
    team.configure(repositories, more=SMALL.format(url=webhook.url))
    return night(team, webhook)


@pytest.fixture(scope="session")
def worse(good: Night, tmp_path_factory: pytest.TempPathFactory, sources: Path, webhook: Webhook) -> Night:
    """The good night's model is live; what there is to learn tonight has its positives shuffled."""
    team = good.team.copy(tmp_path_factory.mktemp("team") / "worse")
    team.configure([(sources / "shuffled" / "code", "")], more=SMALL.format(url=webhook.url))
    return night(team, webhook)


def night(team: Team, webhook: Webhook) -> Night:
    told = len(webhook.posted)
    with team.serving() as service:
        _, before = service.embed([QUESTION])
        done = team.run("run", "--json")
        _, after = service.embed([QUESTION])
    return Night(team, done, before, after, tuple(webhook.posted[told:]))
