"""A bar on standard error: how many blocks are done, and the time that is left."""

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

WIDTH, INTERVAL = 24, 0.2  # characters, seconds


class Bar:
    """What is done of all blocks.

    Args:
        total: How many there are.
        progress: Whether to show it, or what to call with (done, total) instead.
    """

    def __init__(self, total: int, progress: bool | Callable[[int, int], None]) -> None:
        if not isinstance(progress, bool) and not callable(progress):
            raise ValueError(
                f"`progress` is `True`, `False` or a function of two numbers, how many blocks are done and how many there are. "
                f"Received: progress={progress!r}"
            )
        self.total, self.progress = total, progress
        self.done = self.computed = 0
        self.lock = threading.Lock()
        self.start = self.shown = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress is True:
            print("\r" + self.text(), file=sys.stderr)

    def advance(self, blocks: int, *, computed: bool) -> None:
        """So many more blocks are done, which were computed now or before."""
        with self.lock:
            self.done += blocks
            self.computed += blocks if computed else 0
            if callable(self.progress):
                self.progress(self.done, self.total)
            elif self.progress and time.monotonic() - self.shown > INTERVAL:
                self.shown = time.monotonic()
                print("\r" + self.text(), end="", file=sys.stderr, flush=True)

    def left(self) -> float | None:
        """About how many seconds are left, going by the blocks that were computed now."""
        return (time.monotonic() - self.start) / self.computed * (self.total - self.done) if self.computed else None

    def text(self) -> str:
        """The bar in one line."""
        full = self.done * WIDTH // max(1, self.total)
        passed, left = time.monotonic() - self.start, self.left()
        ending = f", {clock(left)} left" if left is not None and self.done < self.total else ""
        line = f"{'━' * full}{'─' * (WIDTH - full)} {self.done:,} of {self.total:,} blocks, {clock(passed)}{ending}"
        return f"{line:<78}"


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours, minutes and seconds."""
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours}:{minutes:02}:{int(seconds) % 60:02}" if hours else f"{minutes}:{int(seconds) % 60:02}"
