"""A CPU's cores side by side: each works on a batch of its own with one thread.

Matrix products of a small model are too short to be divided among cores: what they wait for each other costs more
than it brings, and beside any other load it costs many times more. Batches have nothing to wait for.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def worker_count() -> int:
    """How many work side by side: as many as torch has threads."""
    import torch

    return torch.get_num_threads()


def in_workers(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function` of each item, in the items' order; a single item is worked on here, with all of torch's threads.

    Gradient and inference mode belong to a thread: `function` sets what it needs.
    """
    count = worker_count()
    if count == 1 or len(items) < 2:
        return map(function, items)
    return _pool(count).map(function, items)


def _pool(count: int) -> ThreadPoolExecutor:
    with _lock:
        if count not in _pools:
            _pools[count] = _started(count)
        return _pools[count]


def _started(count: int) -> ThreadPoolExecutor:
    """A pool whose threads run already, with one of torch's threads each."""
    import torch

    meeting = threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread's first question overwrites its number by the last one set anywhere
        torch.set_num_threads(1)
        meeting.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="embed", initializer=begin)
    for _ in range(count):
        pool.submit(int)
    meeting.wait()
    torch.set_num_threads(count)  # threads that start later take the last number set by anyone
    return pool
