"""Where tables and data are printed, and how a table is fitted into the terminal."""

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from keras_adjoint_cli.printable import printable

WIDTH = 132  # where no terminal says how wide it is


class PrintableConsole(Console):
    """A console on which what comes from files moves nothing and has no colour of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def make_console(*, stderr: bool = False) -> Console:
    """Standard output, or error; in colour on a terminal, and without characters that its encoding does not have."""
    stream = sys.stderr if stderr else sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    console = PrintableConsole(stderr=stderr)
    return console if console.is_terminal else PrintableConsole(stderr=stderr, width=WIDTH)


def print_json(data: dict[str, Any]) -> None:
    """Data for programs, on standard output. What there is none of is null: "" and numbers that are not finite, too."""
    print(json.dumps(without_empty(data), indent=2, allow_nan=False))


def without_empty(value: Any) -> Any:
    """A value of JSON's types, with `None` for texts that are empty and numbers that are not finite."""
    match value:
        case dict():
            return {key: without_empty(inner) for key, inner in value.items()}
        case list() | tuple():
            return [without_empty(inner) for inner in value]
        case bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return str(value) or None
    return without_empty(value.item()) if hasattr(value, "item") else str(value)  # a scalar of NumPy's


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def bytes_text(count: int) -> str:
    """The size of a file, as in 0.4 kB or 12.3 MB."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def first_sentence(text: str) -> str:
    return text.split(". ")[0].rstrip(".") + "."


# --- sentences


def say(console: Console, *lines: str, indent: int = 0) -> None:
    """Print lines in the console's markup; on a terminal they go on in the next one at a space.

    Words that are too long stay whole, so that paths can be copied.

    Args:
        console: Where to. What is no terminal gets the lines as they are.
        lines: The lines.
        indent: Spaces before what goes on.
    """
    texts = [console.render_str(line) for line in lines]
    if console.is_terminal:
        texts = [wrapped(text, console.width, indent) for text in texts]
    console.print(Text("\n").join(texts), soft_wrap=True)


def wrapped(text: Text, width: int, indent: int) -> Text:
    """A line with line ends in it, so that it fits a width."""
    column, starts = 0, []
    for word in re.finditer(r"\s*(\S+)", text.plain):
        blank, length = cell_len(word[0][: -len(word[1])]), cell_len(word[1])
        if word.start() and column + blank + length > width:
            starts.append(word.start(1))
            column, blank = indent, 0
        column += blank + length
    first, *others = text.divide(starts)
    for part in (first, *others[:-1]):
        part.rstrip()
    return Text(f"\n{' ' * indent}").join([first, *others])


# --- tables that fit the terminal: long texts are wrapped, and columns that are left out are named


def print_table(
    console: Console,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[str] = (),
    wrap: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Print a table; on a terminal that is too narrow for it, leave columns out and say so, or print lists.

    Args:
        console: Where to. If it is no terminal, it becomes as wide as the table.
        columns: Their titles.
        rows: As many texts each, in the console's markup.
        numbers: Columns that stand to the right.
        wrap: Columns whose texts may go on in the next line, at a space; the first of them is the last to do so.
        spare: Columns that can be left out, what is missed least first.
    """
    table = [dict(zip(columns, map(console.render_str, row), strict=True)) for row in rows]
    shown, optional = list(columns), list(spare)
    natural = {column: width_of([column, *(row[column] for row in table)], str.splitlines) for column in columns}
    longest = {column: width_of([column, *(row[column] for row in table)], str.split) for column in wrap}
    if not console.is_terminal:
        console.width = max(console.width, measured(console, make_table(shown, table, numbers, {})))
    while optional and measured(console, make_table(shown, table, numbers, longest)) > console.width:
        shown.remove(optional.pop(0))
    if measured(console, make_table(shown, table, numbers, longest)) > console.width:
        print_records(console, columns, table)
        return
    widths = dict(longest)
    free = console.width - measured(console, make_table(shown, table, numbers, longest))
    for column in (column for column in wrap if column in shown):
        widths[column] += max(0, min(free, natural[column] - longest[column]))
        free -= widths[column] - longest[column]
    console.print(make_table(shown, table, numbers, widths))
    if len(shown) < len(columns):
        left_out = "; ".join(column for column in columns if column not in shown)
        say(console, f"[dim]Left out for width: {left_out}. A wider terminal shows it, and so does --json.[/]")


def print_records(console: Console, columns: Sequence[str], table: list[dict[str, Text]]) -> None:
    """Print each row as a list of what its columns say, for terminals that would cut their words."""
    first, *others = columns
    for row in table:
        lines = [Text.assemble((f"{first} ", "dim"), row[first])]
        lines += [Text.assemble((f"  {column}: ", "dim"), row[column]) for column in others if row[column].plain]
        for line in lines:
            console.print(wrapped(line, console.width, indent=4), soft_wrap=True)


def make_table(
    columns: Sequence[str], rows: list[dict[str, Text]], numbers: Sequence[str], widths: dict[str, int]
) -> Table:
    """A table of some of the columns, some of them of a given width, the others as wide as their longest text."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in numbers else "left"
        table.add_column(
            column, justify=justify, width=widths.get(column), no_wrap=column not in widths, overflow="fold"
        )
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    return table


def width_of(texts: Iterable[str | Text], parts: Callable[[str], list[str]]) -> int:
    """The width of the widest part of some texts."""
    return max((Text(part).cell_len for text in texts for part in parts(str(text))), default=0)


def measured(console: Console, table: Table) -> int:
    """The width of a table that is not limited."""
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum
