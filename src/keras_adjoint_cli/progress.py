"""What a command is doing, in one line on standard error, as long as it does it; nothing where that is no terminal.

The line has no escape sequences, and hides no cursor, so that the process can end at any moment. It shows from the first
second on what is done, and from the second one on for how long, with a bar if the number of steps is known.
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SAID_AFTER, BAR_AFTER, INTERVAL = 0.3, 2.0, 0.2  # seconds
BAR = 24  # characters


class Line:
    """The line of one activity, written by a thread of its own, for the work may take its time between two steps."""

    def __init__(self, what: str, steps: int | None, *, tells_time_left: bool = False) -> None:
        self.what = "".join(letter if letter.isprintable() else "?" for letter in what)
        self.steps, self.done, self.shown, self.tells_time_left = steps, 0, 0, tells_time_left
        self.start = time.monotonic()
        self.ended, self.writing = threading.Event(), threading.Lock()
        self.thread = threading.Thread(target=self.keep_writing, daemon=True)
        self.thread.start()

    def keep_writing(self) -> None:
        pause = SAID_AFTER
        while not self.ended.wait(pause):
            self.write(self.text(time.monotonic() - self.start))
            pause = INTERVAL

    def text(self, seconds: float) -> str:
        """What the line says after some seconds."""
        if seconds < BAR_AFTER:
            return f"{self.what} …"
        clock = clock_text(seconds)
        if self.steps is None:
            return f"{self.what} … {clock}"
        full = min(self.done, self.steps) * BAR // self.steps
        left = ""
        if self.tells_time_left and self.done:
            left = f", {clock_text(seconds / self.done * (self.steps - self.done))} left"
        return f"{self.what} {'━' * full}{'─' * (BAR - full)} {self.done} of {self.steps}, {clock}{left}"

    def write(self, text: str) -> None:
        """Replace the line."""
        text = text[: shutil.get_terminal_size().columns - 1]
        with self.writing:
            if not self.ended.is_set():
                write_raw("\r" + text.ljust(self.shown))
                self.shown = len(text)

    def advance(self) -> None:
        self.done += 1

    def end(self) -> None:
        """Take the line away."""
        with self.writing:
            self.ended.set()
            self.clear()

    def clear(self) -> None:
        if self.shown:
            write_raw("\r" + " " * self.shown + "\r")
            self.shown = 0


def clock_text(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def write_raw(text: str) -> None:
    """Straight to the terminal: Python's own stream may be in the middle of a line where a signal comes."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with suppress(OSError, ValueError):  # the terminal may be gone
        os.write(sys.stderr.fileno(), text.encode(encoding, errors="replace"))


_lines: list[Line] = []  # the innermost last; that one is on the terminal


@contextmanager
def progress(what: str, steps: int | None = None, *, tells_time_left: bool = False) -> Iterator[Callable[[], None]]:
    """Say what is being done inside, and give a function to call after every step of it, if it has steps."""
    if not steps and steps is not None or not is_terminal():
        yield lambda: None
        return
    if _lines:
        _lines[-1].end()
    line = Line(what, steps, tells_time_left=tells_time_left)
    _lines.append(line)
    try:
        yield line.advance
    finally:
        line.end()
        _lines.remove(line)


def is_terminal() -> bool:
    """Whether standard error is a terminal that can replace a line."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def clear_line() -> None:
    """Take away what is there, from a signal handler, which may have come while it was written."""
    for line in _lines:
        line.ended.set()
        line.clear()
