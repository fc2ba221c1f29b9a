"""From blobs to clean definitions, on all cores, each blob once.

What is parsed depends on nothing but content and language, so that the result can be cached by blob id for ever.
Knows how work is spread; nothing of trees and tables.
"""

import contextlib
import os
import resource
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import chain, islice
from multiprocessing import current_process, get_context
from typing import TypeVar

from embed_assets.snippets.extract import Definition, extract
from embed_assets.snippets.filters import content_reason
from embed_assets.snippets.grammars import query_of
from embed_assets.snippets.secrets import holds_secret, suspicious, without_addresses
from embed_assets.snippets.syntax import TooSlowError

POOL_BYTES = 1_500_000
"""So much source is parsed here while other processes start, which takes them about half a second of a core each; for
less than as much again none are started."""
BATCH_BYTES = 250_000
"""Source handed to a process at once: large against the cost of a message, small against the memory."""
BATCHES_AHEAD = 3
"""Batches in flight per process: none waits for work, and memory stays bounded."""
MAX_PROCESS_BYTES = 4 * 1024**3
"""Address space of a process that parses; on honest code it takes less than half a gigabyte. What interrupted parses
lose (see `syntax`) ends it one day, and then another one goes on."""
PARSER_CRASHED = "parser_crashed"
"""Reason of files that end the process which parses them. Never remembered: lack of memory does the same."""
UNUSABLE_POOL = (BrokenProcessPool, OSError, MemoryError)
"""A process died, ran out of memory, or none could be started."""
_Taken = TypeVar("_Taken")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """What one file gave."""

    reason: str = ""
    """Why nothing was taken from it; empty when it was parsed."""
    definitions: tuple[Definition, ...] = ()
    secrets: int = 0
    """Definitions dropped because they hold a secret."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """One file to parse."""

    blob_id: str
    language: str
    content: bytes


def parse(content: bytes, language: str) -> Parsed:
    """Clean definitions of one file: checked for what never enters, secrets dropped, addresses removed.

    Raises:
        GrammarError: the grammar is missing or does not fit.
    """
    reason = content_reason(content)
    if reason:
        return Parsed(reason=reason)
    try:
        definitions = extract(content, language)
    except TooSlowError:
        return Parsed(reason="too_slow")
    if not suspicious(content.decode("utf-8", "replace")):
        return Parsed(definitions=tuple(_anonymous(definition) for definition in definitions))
    clean = [one for one in definitions if not holds_secret(f"{one.code}\n{one.doc}\n{one.signature}")]
    return Parsed(
        definitions=tuple(_anonymous(definition) for definition in clean), secrets=len(definitions) - len(clean)
    )


def parse_all(blobs: Iterable[Blob], notices: list[str] | None = None) -> Iterator[tuple[Blob, Parsed]]:
    """Parses every blob; as `take_from_all`."""
    return take_from_all(blobs, everything, notices)


def everything(blob: Blob, parsed: Parsed) -> Parsed:
    """All that a file gave."""
    return parsed


def take_from_all(
    blobs: Iterable[Blob], take: Callable[[Blob, Parsed], _Taken], notices: list[str] | None = None
) -> Iterator[tuple[Blob, _Taken]]:
    """Parses every blob, in order: the first few here, and if there are many more, the rest in a process per core.

    Args:
        blobs: read as they are needed.
        take: a module's function that finds what is wanted of a parsed file, in the process that parsed it: only this
            travels.
        notices: receives what the user should know: files that crash the parser, processes that cannot be started.

    Raises:
        GrammarError: a grammar is missing or does not fit.
    """
    processes = 1 if current_process().daemon else usable_cores()  # A daemon may have no children.
    remaining = iter(blobs)
    first = next(_batches(remaining, POOL_BYTES), [])
    batches = _batches(remaining, BATCH_BYTES)
    ahead = list(islice(batches, processes * BATCHES_AHEAD)) if processes > 1 else []
    if sum(len(blob.content) for batch in ahead for blob in batch) < POOL_BYTES:
        for blob in chain(first, *ahead, chain.from_iterable(batches)):
            yield blob, take(blob, parse(blob.content, blob.language))
    else:
        yield from _in_processes(first, chain(ahead, batches), take, processes, [] if notices is None else notices)


def usable_cores() -> int:
    """Cores this process may run on: fewer than the machine has inside a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_grammars(languages: Iterable[str]) -> None:
    """
    Raises:
        GrammarError: a grammar that will be needed is missing or does not fit.
    """
    for language in sorted(set(languages)):
        query_of(language)


def _in_processes(
    first: list[Blob],
    batches: Iterator[list[Blob]],
    take: Callable[[Blob, Parsed], _Taken],
    processes: int,
    notices: list[str],
) -> Iterator[tuple[Blob, _Taken]]:
    """In order: the first ones here while a pool starts, then batches through it.

    A pool that breaks is replaced; where none can be had, this process goes on.
    """
    pool = _pool(processes)
    pending: deque[tuple[list[Blob], Future[list[_Taken]]]] = deque()
    try:
        while True:
            for batch in islice(batches, processes * BATCHES_AHEAD - len(pending)):
                pending.append((batch, _submit(pool, batch, take)))
            for blob in first:
                yield blob, take(blob, parse(blob.content, blob.language))
            first = []
            if not pending:
                return
            batch, future = pending.popleft()
            try:
                yield from zip(batch, future.result(), strict=True)
                continue
            except UNUSABLE_POOL as error:
                pool.shutdown(wait=True, cancel_futures=True)
                broken = _why_none_starts()
                if broken:
                    notices.append(
                        f"no process could be started to parse in ({broken}; before that: {error}); what was left was "
                        f"parsed on one core. Look at the limits on processes and memory, and guard a script of your "
                        f'own with `if __name__ == "__main__"`'
                    )
                    for blob in chain(batch, *(later for later, _ in pending), chain.from_iterable(batches)):
                        yield blob, take(blob, parse(blob.content, blob.language))
                    return
            yield from _one_by_one(batch, take, notices)
            pool = _pool(processes)
            pending = deque((later, _submit(pool, later, take)) for later, _ in pending)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(
    batch: list[Blob], take: Callable[[Blob, Parsed], _Taken], notices: list[str]
) -> Iterator[tuple[Blob, _Taken]]:
    """In a process beside, replaced after a crash: a file that crashes the parser takes nothing else with it."""
    pool = _pool(1)
    try:
        for blob in batch:
            try:
                taken = _submit(pool, [blob], take).result()[0]
            except UNUSABLE_POOL:
                pool.shutdown(wait=True, cancel_futures=True)
                pool = _pool(1)
                notices.append(f"the {blob.language} parser crashed on blob {blob.blob_id}; the file is left out")
                taken = take(blob, Parsed(reason=PARSER_CRASHED))
            yield blob, taken
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _why_none_starts() -> str:
    """Empty when a process can be started at all."""
    try:
        with _pool(1) as pool:
            pool.submit(os.getpid).result()
    except UNUSABLE_POOL as error:
        return str(error) or type(error).__name__
    return ""


def _pool(processes: int) -> ProcessPoolExecutor:
    # Spawned: the caller may run threads (Dagster's), whose locks a forked child would inherit locked.
    return ProcessPoolExecutor(processes, get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """In the child: it ends when the pool ends it, and a parser that wants all memory ends it and nobody else.

    A parent that ignores SIGTERM would pass that on, and a broken pool wait for its processes for ever.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(ValueError, OSError):  # Not every system has this limit, or lets it be lowered.
        resource.setrlimit(resource.RLIMIT_AS, (min(MAX_PROCESS_BYTES, hard) if hard > 0 else MAX_PROCESS_BYTES, hard))


def _submit(
    pool: ProcessPoolExecutor, batch: list[Blob], take: Callable[[Blob, Parsed], _Taken]
) -> "Future[list[_Taken]]":
    try:
        return pool.submit(_parse_batch, batch, take)
    except UNUSABLE_POOL as error:
        failed: Future[list[_Taken]] = Future()
        failed.set_exception(error)
        return failed


def _parse_batch(batch: Sequence[Blob], take: Callable[[Blob, Parsed], _Taken]) -> list[_Taken]:
    return [take(blob, parse(blob.content, blob.language)) for blob in batch]


def _batches(blobs: Iterable[Blob], least: int) -> Iterator[list[Blob]]:
    """Lists of at least `least` bytes, but for the last."""
    batch: list[Blob] = []
    size = 0
    for blob in blobs:
        batch.append(blob)
        size += len(blob.content)
        if size >= least:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _anonymous(definition: Definition) -> Definition:
    if "@" not in definition.code and "@" not in definition.doc:
        return definition
    return replace(
        definition,
        code=without_addresses(definition.code),
        doc=without_addresses(definition.doc),
        signature=without_addresses(definition.signature),
        parts=tuple(without_addresses(part) for part in definition.parts),
    )
