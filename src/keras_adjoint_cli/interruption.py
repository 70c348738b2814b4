"""Ctrl-C at any moment: an end in one line, while nothing is written; an exception while something is.

Imports little, for it is needed before anything else.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130


def stop_at_once(signum: int, frame: FrameType | None) -> None:
    """End the process, from the handler of a signal; not for when a file is being written.

    While Python imports, an exception would be taken for a failed import, and be shown with a traceback.
    """
    progress = sys.modules.get("keras_adjoint_cli.progress")
    if progress is not None and hasattr(progress, "clear_line"):
        progress.clear_line()
    os.write(2, b"keras-adjoint: interrupted\n")
    os._exit(INTERRUPTED)


_stops = False  # whether Ctrl-C ends this process at once, where no file is being written


def stop_on_interrupt() -> None:
    """Have Ctrl-C end the process at once, unless it is ignored, as it is in the background."""
    global _stops
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop_at_once)
        _stops = True


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, Ctrl-C is an exception, by which what is half-written is removed."""
    if signal.getsignal(signal.SIGINT) is not stop_at_once:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, stop_at_once)


@contextmanager
def not_interruptible() -> Iterator[None]:
    """Inside of `interruptible`, let Ctrl-C end the process at once again."""
    if not _stops or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, stop_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
