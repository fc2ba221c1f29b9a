"""Who is tested and who is called: by unique names only, and only to learn from."""

from collections import Counter
from typing import Any

import polars as pl

from embed_assets.pairs.calls import proposals_of_callers, proposals_of_tests
from embed_assets.pairs.corpus import corpus_of
from embed_assets.pairs.sides import Sides
from embed_assets.records import SNIPPET_SCHEMA, digest_of
from embed_assets.snippets.extract import snippet_id_of


def a_row(name: str, code: str, *, doc: str = "", path: str = "a.py", scope: str = "") -> dict[str, Any]:
    return {
        "definition_id": digest_of(path, scope, name),
        "snippet_id": snippet_id_of("python", code),
        "repository": "shop",
        "path": path,
        "language": "python",
        "kind": "function",
        "scope": scope,
        "name": name,
        "signature": "",
        "doc": doc,
        "code": code,
        "parts": [],
        "start_line": 1,
        "end_line": 2,
        "blob_id": "",
        "is_test": path.startswith("tests/"),
    }


def table(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=dict(SNIPPET_SCHEMA))


RETRY = a_row("retry_webhook", "def retry_webhook(hook):\n    return send_later(hook)\n")
SEND = a_row("send_later", "def send_later(hook):\n    queue.put(hook)\n", path="b.py")
SIDES = Sides(files={"shop": {"a.py": "train", "b.py": "train", "held.py": "test"}})


def a_test(name: str, *calls: str) -> dict[str, Any]:
    body = "".join(f"    {call}(1)\n" for call in calls)
    return a_row(name, f"def {name}():\n{body}", path="tests/test_a.py")


def found_in(*rows: dict[str, Any]) -> tuple[list[tuple[str, list[str]]], Counter[str]]:
    dropped: Counter[str] = Counter()
    tree = table(*rows)
    found = proposals_of_tests([tree], corpus_of([tree]), SIDES, dropped)
    assert {one.split for one in found} <= {"train"}
    return [(one.query, [answer.name for answer in one.answers]) for one in found], dropped


def test_a_test_asks_for_the_called_function_that_it_is_named_after() -> None:
    found, _ = found_in(RETRY, SEND, a_test("test_retry_webhook_stops_after_timeout", "retry_webhook", "send_later"))
    assert found == [("retry webhook stops after timeout", ["retry_webhook"])]


def test_a_name_alone_or_a_function_that_is_not_called_makes_no_pair() -> None:
    found, dropped = found_in(
        RETRY,
        SEND,
        a_test("test_retry_webhook", "retry_webhook"),
        a_test("test_retry_webhook_stops_early", "send_later"),
    )
    assert found == [] and dropped == {"test_repeats_name": 1, "test_unmatched": 1}


def test_a_name_that_two_functions_bear_and_a_file_held_out_are_no_answer() -> None:
    other = a_row("retry_webhook", "def retry_webhook(self):\n    return 1\n", scope="Other")
    asking = a_test("test_retry_webhook_stops_after_timeout", "retry_webhook")
    assert found_in(RETRY, other, asking)[0] == []
    held = a_row("retry_webhook", "def retry_webhook(hook):\n    return send_later(hook)\n", path="held.py")
    assert found_in(held, asking)[0] == []


def test_a_callers_doc_asks_for_what_it_calls() -> None:
    documented = a_row(
        "nightly",
        "def nightly(hooks):\n    retry_webhook(hooks)\n",
        doc="Tries all failed deliveries once more at night.",
    )
    tree = table(documented, RETRY, SEND)
    [found] = proposals_of_callers(corpus_of([tree]), SIDES, Counter())
    assert (found.source, found.query) == ("caller", "Tries all failed deliveries once more at night.")
    assert [answer.name for answer in found.answers] == ["retry_webhook"]
    held = Sides(files={"shop": {"a.py": "test", "b.py": "train"}})
    assert proposals_of_callers(corpus_of([tree]), held, Counter()) == []
