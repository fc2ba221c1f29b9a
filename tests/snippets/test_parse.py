"""Parsing on all cores: what one process gives, in order, whatever happens to the processes."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from embed_assets.snippets import parse as parsing
from embed_assets.snippets.parse import PARSER_CRASHED, Blob, Parsed, parse, parse_all, take_from_all

BOUNDED_MEMORY = pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to RLIMIT_AS")
CRASH = b"# crashes the parser\n"


def blobs_with(crashing: Sequence[int] = (), count: int = 60) -> list[Blob]:
    return [
        Blob(
            blob_id=str(number),
            language="python",
            content=(CRASH if number in crashing else b"")
            + b"".join(b"def f%d(): return %d\n" % (number, line) for line in range(50)),
        )
        for number in range(count)
    ]


def dies_on_crash(batch: Sequence[Blob], take: Callable[[Blob, Parsed], Parsed]) -> list[Parsed]:
    """In the place of `_parse_batch`: a grammar that crashes ends its process without a word."""
    if any(blob.content.startswith(CRASH) for blob in batch):
        os._exit(1)
    return [take(blob, parse(blob.content, blob.language)) for blob in batch]


def takes_all_memory(batch: Sequence[Blob], take: Callable[[Blob, Parsed], Parsed]) -> list[Parsed]:
    """In the place of `_parse_batch`: more than MAX_PROCESS_BYTES."""
    if any(blob.content.startswith(CRASH) for blob in batch):
        bytearray(6 * 1024**3)
    return [take(blob, parse(blob.content, blob.language)) for blob in batch]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes from the first file on, five files to a batch."""
    monkeypatch.setattr(parsing, "POOL_BYTES", 1)
    monkeypatch.setattr(parsing, "BATCH_BYTES", 5_000)
    monkeypatch.setattr(parsing, "usable_cores", lambda: 2)


@pytest.mark.usefixtures("small_batches")
def test_many_processes_give_what_one_gives() -> None:
    blobs = blobs_with()
    alone = [parse(blob.content, blob.language) for blob in blobs]
    together = list(parse_all(blobs))
    assert [blob.blob_id for blob, _ in together] == [blob.blob_id for blob in blobs]
    assert [parsed for _, parsed in together] == alone
    assert Counter(len(parsed.definitions) for parsed in alone) == {50: 60}


def names_of(blob: Blob, parsed: Parsed) -> tuple[int, list[str]]:
    return os.getpid(), [definition.name for definition in parsed.definitions]


@pytest.mark.usefixtures("small_batches")
def test_only_what_is_wanted_leaves_the_process_that_parsed() -> None:
    blobs = blobs_with()
    found = list(take_from_all(blobs, names_of))
    assert [names for _, (_, names) in found] == [[f"f{number}"] * 50 for number in range(60)]
    processes = Counter(process for _, (process, _) in found)
    assert processes.pop(os.getpid()) == 1, "the first file is parsed here"
    assert sum(processes.values()) == 59


def shrugs_at_sigterm(batch: Sequence[Blob], take: Callable[[Blob, Parsed], Parsed]) -> list[Parsed]:
    """In the place of `_parse_batch`: says whether the process would ignore its pool's order to end."""
    ignores = signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    return [take(blob, Parsed(reason="ignores" if ignores else "obeys")) for blob in batch]


@pytest.mark.usefixtures("small_batches")
def test_processes_of_a_parent_that_ignores_sigterm_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignored signals are inherited, and a broken pool would wait for such a process for ever."""
    monkeypatch.setattr(parsing, "_parse_batch", shrugs_at_sigterm)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        found = Counter(parsed.reason for _, parsed in parse_all(blobs_with()))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found["ignores"] == 0
    assert found["obeys"] > 50


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("parse_batch", [dies_on_crash, pytest.param(takes_all_memory, marks=BOUNDED_MEMORY)])
def test_files_that_crash_the_parser_take_nothing_else_with_them(
    parse_batch: Callable[..., list[Parsed]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "_parse_batch", parse_batch)
    notices: list[str] = []
    found = list(parse_all(blobs_with(crashing=(17, 18, 41)), notices))
    assert [blob.blob_id for blob, _ in found] == [str(number) for number in range(60)]
    assert [blob.blob_id for blob, parsed in found if parsed.reason == PARSER_CRASHED] == ["17", "18", "41"]
    assert sum(len(parsed.definitions) for _, parsed in found) == 57 * 50
    assert [notice for notice in notices if "blob 17;" in notice]
    assert len(notices) == 3


@pytest.mark.usefixtures("small_batches")
def test_where_no_process_starts_this_one_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        parsing,
        "_pool",
        lambda processes: ProcessPoolExecutor(processes, get_context("spawn"), initializer=os._exit, initargs=(1,)),
    )
    notices: list[str] = []
    found = list(parse_all(blobs_with(), notices))
    assert [parsed for _, parsed in found] == [parse(blob.content, blob.language) for blob in blobs_with()]
    (notice,) = notices
    assert "no process could be started" in notice
