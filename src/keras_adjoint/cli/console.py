"""Where tables and data are printed."""

import json
import sys

from rich.console import Console

WIDTH = 132  # where no terminal says how wide it is


def make_console():
    """Standard output; in colour on a terminal, and without characters that its encoding does not have."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def print_json(data):
    """Data for programs, on standard output."""
    print(json.dumps(data, indent=2))
