"""What reaches a terminal: no character of a file or its name that moves the cursor, sets a title or turns a line around."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

KEPT = "\n\t"
SPACES = "\u00a0\u2007\u202f\u3000"  # Python has them escaped, and they do no harm


def printable(text: str, kept: str = KEPT) -> str:
    r"""A text with every control and formatting character as Python writes it, such as `\x1b` and `\u202e`."""
    if text.isprintable():
        return text
    if "\n" in kept and "\n" in text:  # most lines of a long text are printable
        return "\n".join(printable(line, kept) for line in text.split("\n"))
    return "".join(
        one if one.isprintable() or one in kept or one in SPACES else one.encode("unicode_escape").decode()
        for one in text
    )


def escape(text: str) -> str:
    """A text from outside, for the console's markup, in one line."""
    from rich import markup  # which errors of the start do without

    return markup.escape(printable(text, kept=""))


class PrintableStream:
    """A stream on which others print what they find in a file. The console goes past it, for its colours are ours."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # where rich looks for the stream behind a stand-in

    def write(self, text: str) -> int:
        return self.rich_proxied_file.write(printable(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """Inside, all that is printed on standard output and error is printable, warnings of other packages included."""
    streams = sys.stdout, sys.stderr
    stand_ins = PrintableStream(sys.stdout), PrintableStream(sys.stderr)
    sys.stdout, sys.stderr = stand_ins
    try:
        yield
    finally:
        if (sys.stdout, sys.stderr) == stand_ins:
            sys.stdout, sys.stderr = streams
