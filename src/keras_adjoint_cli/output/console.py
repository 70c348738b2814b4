"""Where tables, data and progress are printed."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

WIDTH = 132  # where no terminal says how wide it is
MANY = 60  # steps from which on a bar is worth its line


def make_console(*, stderr: bool = False) -> Console:
    """Standard output, or error; in colour on a terminal, and without characters that its encoding does not have."""
    stream = sys.stderr if stderr else sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    console = Console(highlight=False, stderr=stderr)
    return console if console.is_terminal else Console(highlight=False, stderr=stderr, width=WIDTH)


def print_json(data: Any) -> None:
    """Data for programs, on standard output."""
    print(json.dumps(data, indent=2, default=str))


@contextmanager
def progress(what: str, steps: int) -> Iterator[Callable[[], None]]:
    """Give a function to call after every step; a bar on standard error shows them if it is a terminal and they are many."""
    if steps < MANY or not sys.stderr.isatty():
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=steps)
        yield lambda: bar.advance(task)


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def first_sentence(text: str) -> str:
    return text.split(". ")[0].rstrip(".") + "."
