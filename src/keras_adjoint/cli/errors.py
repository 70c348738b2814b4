"""How the command ends when it cannot do its work: one line on standard error, and exit status 2."""

import sys
from contextlib import contextmanager

import typer


class Unusable(Exception):
    """A file or an argument that a command can do nothing with. The message is what the user reads."""


@contextmanager
def one_line(*, debug):
    """Turn exceptions into one line; with `debug`, show where they come from."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            raise
        text = str(error) if isinstance(error, (Unusable, OSError)) else f"{type(error).__name__}: {error}"
        print("keras-adjoint: " + " ".join(text.split()), file=sys.stderr)
        raise typer.Exit(2) from error
