"""Known secrets and people's addresses, put wherever a night reads, are in nothing that it writes.

Every secret stands in code (today's and in versions that are gone), in a doc, a default argument, a class body, a
commit's subject, an issue's title and body, and a query of one's own; beside each stands an honest sibling that must
come through.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from embed_assets.pairs.build import build_pairs
from embed_assets.settings import Settings
from embed_assets.snippets.collect import collect_snippets
from embed_assets.store import Store
from tests.pairs.shop import TOPICS, VERBS, Shop, module
from tests.pairs.written_history import WrittenHistory
from tests.snippets.test_secrets import RANDOM, SECRETS

pytestmark = pytest.mark.usefixtures("small_guard")
PERSON = "grace.hopper@compiler.mil.us"
CORES = (RANDOM[:10], "IOSFODNN7QWERTY1", "123456789012", "MIIEow", "dozjgNryP4J3jVm", "9f86d081884c7d65")
"""What remains of each secret however it is quoted and escaped."""
ADDRESSES = (PERSON, "ada@engine.org", "bob@engine.org", "cy@engine.org")


def leaky_file(secret: str, version: int) -> str:
    literal = json.dumps(secret)
    return f'''
class Holder:
    """Holds what nobody shall see, version {version}."""

    value = {literal}

    def within(self):
        """Gives back the thing that was put in long ago."""
        return {literal}


def documented(rows):
    """Sends rows to the far end with
    {json.dumps(secret)}
    """
    return rows[{version}]


def argument(rows, value={literal}):
    """Sends rows to the near end, one after the other."""
    return rows[{version}]


def outer(rows):
    """Sends rows nowhere, since nobody asked for them."""
    def inner():
        return {literal}
    return inner() + rows[{version}]


def honest_sibling(rows, reply_to="cy@engine.org"):
    """Sends rows to somebody, by ada@engine.org."""
    owner = "bob@engine.org"
    return owner, rows[{version}]
'''


def read_back(root: Path) -> Iterator[tuple[Path, str]]:
    """Everything under the data directory as text: tables and caches unpacked."""
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            yield path, "\n".join(str(row) for row in pl.read_parquet(path).iter_rows())
        elif content.startswith(b"SQLite format 3"):
            with sqlite3.connect(path) as connection:
                tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                rows = [row for table in tables for row in connection.execute(f"SELECT * FROM {table}")]
            connection.close()
            cells = [
                zlib.decompress(cell) if isinstance(cell, bytes) else str(cell).encode() for row in rows for cell in row
            ]
            yield path, b"\n".join(cells).decode("utf-8", "replace")
        else:
            yield path, content.decode("utf-8", "replace")


def seeded(shop: Shop, folder: Path) -> Settings:
    issues = []
    for number, (kind, secret) in enumerate(sorted(SECRETS.items())):
        for version in (1, 2):
            topic, verb = TOPICS[number % 12], VERBS[version]
            shop.state[f"{verb}_{topic}"] = 100 * version + number
            mark = shop.written.commit(
                f"Let marker{number} count {kind} rows of version{version} with {secret} in nightly totals",
                {f"src/{topic}.py": module(topic, shop.state), f"src/leaky_{kind}.py": leaky_file(secret, version)},
                author=f"Grace <{PERSON}>",
            )
            issues.append((mark, f"Upload of {kind} rows number{number} fails with {secret} every night", secret))
        if number % 2:
            shop.written.commit(f"Remove leak{number} again", {f"src/leaky_{kind}.py": leaky_file("gone", 3)})
    shop.go_on(60)
    issues_file, queries_file = folder / "issues.jsonl", folder / "queries.jsonl"
    commits = shop.written.commit_ids()
    issues_file.write_text(
        "".join(
            json.dumps(
                {"id": mark, "title": title, "body": f"See {secret}. Ask {PERSON}.", "commits": [commits[mark - 1]]}
            )
            + "\n"
            for mark, title, secret in [
                *issues,
                (3, "Nightly totals of pallets are wrong since the sixth", "honest body"),
            ]
        )
    )
    place = {"repository": "shop", "path": "src/invoice.py", "name": "validates_invoice"}
    asked = [f"which invoices need {secret} to be validated" for secret in SECRETS.values()]
    queries_file.write_text(
        "".join(json.dumps({"query": text, **place}) + "\n" for text in [*asked, "which invoices are honest"])
    )
    return Settings.model_validate(
        {
            "repositories": [{"source": str(shop.written.path), "name": "shop", "issues": str(issues_file)}],
            "pairs": {"test_queries": 20, "guard_queries": 200, "queries_file": str(queries_file)},
        }
    )


def test_every_secret_has_a_core() -> None:
    assert [kind for kind, secret in SECRETS.items() if not any(core in secret for core in CORES)] == []


def test_no_artifact_of_a_night_holds_a_secret_or_a_persons_address(
    written: WrittenHistory, tmp_path: Path, store: Store
) -> None:
    settings = seeded(Shop(written), tmp_path)
    snippets = collect_snippets(settings, store)
    pairs = build_pairs(settings, store)
    texts = dict(read_back(store.root))
    everything = "\n".join(texts.values())
    for never in (*CORES, *ADDRESSES):
        assert not [str(path) for path, text in texts.items() if never in text]
    # The check is worth something only if what stands beside the secrets came through.
    for honest in ("honest_sibling", "Sends rows to somebody", "which invoices are honest", "in monthly beta"):
        assert honest in everything
    still_there = (len(SECRETS) + 1) // 2
    assert snippets.dropped == {
        "secret": 6 * still_there
    }  # The class, its method, the doc, the default, inner and outer.
    assert pairs.dropped["query_holds_secret"] >= len(SECRETS)
