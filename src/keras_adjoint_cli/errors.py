"""How the command ends when it cannot do its work: one line on standard error, and an exit status that is not 0."""

import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer

from keras_adjoint_cli.printable import printable, printable_output

FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130


class Unusable(Exception):
    """A file or an argument that a command can do nothing with. The message is what the user reads."""


class Failed(Unusable):
    """What a command made does not pass its own test."""


@contextmanager
def one_line(*, debug: bool) -> Iterator[None]:
    """Turn exceptions into one line; with `debug`, show where they come from."""
    try:
        with printable_output():
            yield
    except (typer.Exit, BrokenPipeError):  # what reads the output may stop, as `head` does
        raise
    except KeyboardInterrupt as error:
        if debug:
            raise
        print_error("interrupted; no file is left half-written")
        raise typer.Exit(INTERRUPTED) from error
    except Exception as error:
        if debug:
            raise
        from keras_adjoint.errors import KerasAdjointError  # imports Keras, which `--help` does without

        if isinstance(error, OSError) and error.filename is not None:
            print_error(f"{os.fspath(error.filename)}: {error.strerror}.")
        else:
            speaks_for_itself = isinstance(error, (Unusable, KerasAdjointError, OSError))
            print_error(str(error) if speaks_for_itself else f"{type(error).__name__}: {error}")
        raise typer.Exit(FAILED if isinstance(error, Failed) else UNUSABLE) from error


@contextmanager
def unusable(*errors: type[Exception]) -> Iterator[None]:
    """Let errors of these types, whose messages are made for users, pass as `Unusable`."""
    try:
        yield
    except errors as error:
        raise Unusable(str(error)) from error


def print_error(text: str) -> None:
    """One line on standard error."""
    print(printable("keras-adjoint: " + " ".join(text.split())), file=sys.stderr)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names closest to one that is unknown, else the first few, in one line."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    return ", ".join(near or [*names[:5], *(["..."] if len(names) > 5 else [])])
