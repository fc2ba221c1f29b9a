"""Peak memory of a process and its children, sampled."""

import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

SAMPLE_SECONDS = 0.05
RSS_PER_MEGABYTE = 2**20 if sys.platform == "darwin" else 2**10
"""`ru_maxrss` counts bytes on macOS, kilobytes elsewhere: so many of them are a megabyte."""


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """`megabytes` afterwards: the largest sum of resident memory of this process and its children."""
    found, stop = {"megabytes": 0.0}, threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not stop.wait(SAMPLE_SECONDS):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            found["megabytes"] = max(found["megabytes"], total / 2**20)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / RSS_PER_MEGABYTE
        found["megabytes"] = max(found["megabytes"], own)
