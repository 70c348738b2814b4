"""Recursion deeper than Python's limit, for graphs and syntax trees that others walk by recursion."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FRAMES = 20_000  # of Python functions called by Python functions, which take none of the C stack

_LIMIT = threading.RLock()


@contextmanager
def deep_recursion(frames: int = FRAMES) -> Iterator[None]:
    """Inside, Python functions may be nested `frames` deep. The limit is that of all threads, so one enters at a time."""
    with _LIMIT:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(max(before, frames))
        try:
            yield
        finally:
            sys.setrecursionlimit(before)
