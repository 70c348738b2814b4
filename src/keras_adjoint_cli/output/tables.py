"""Tables that fit the terminal: long texts go on in the next line, and what there is no room for is named."""

from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


def print_table(console, columns, rows, *, numbers=(), wordy=(), spare=()):
    """Print a table; on a terminal that is too narrow for it, leave columns out and say so.

    Args:
        console: Where to. If it is no terminal, it becomes as wide as the table.
        columns: Their titles.
        rows: As many texts each, in the console's markup.
        numbers: Columns that stand to the right.
        wordy: Columns whose texts may go on in the next line, at a space; the first of them is the last to do so.
        spare: Columns that can be left out, what is missed least first.
    """
    rows = [dict(zip(columns, map(Text.from_markup, row), strict=True)) for row in rows]
    shown, spare = list(columns), list(spare)
    natural = {column: width_of([column, *(row[column] for row in rows)], str.splitlines) for column in columns}
    longest = {column: width_of([column, *(row[column] for row in rows)], str.split) for column in wordy}
    if not console.is_terminal:
        console.width = max(console.width, measured(console, make_table(shown, rows, numbers, {})))
    while spare and measured(console, make_table(shown, rows, numbers, longest)) > console.width:
        shown.remove(spare.pop(0))
    widths = dict(longest)
    room = console.width - measured(console, make_table(shown, rows, numbers, longest))
    for column in (column for column in wordy if column in shown):
        widths[column] += max(0, min(room, natural[column] - longest[column]))
        room -= widths[column] - longest[column]
    console.print(make_table(shown, rows, numbers, widths))
    if len(shown) < len(columns):
        left_out = "; ".join(column for column in columns if column not in shown)
        console.print(f"[dim]No room for: {left_out}. A wider terminal has it, and so has --json.[/]")


def make_table(columns, rows, numbers, widths):
    """A table of some of the columns, some of them of a given width, the others as wide as their longest text."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        justify = "right" if column in numbers else "left"
        table.add_column(
            column, justify=justify, width=widths.get(column), no_wrap=column not in widths, overflow="fold"
        )
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    return table


def width_of(texts, parts):
    """The width of the widest part of some texts."""
    return max((Text(part).cell_len for text in texts for part in parts(str(text))), default=0)


def measured(console, table):
    """The width of a table that has all the room in the world."""
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum
