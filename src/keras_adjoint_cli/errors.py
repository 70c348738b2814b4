"""How the command ends when it cannot do its work: one line on standard error, and an exit status that is not 0."""

import ast
import difflib
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from keras_adjoint_cli.interruption import INTERRUPTED
from keras_adjoint_cli.printable import printable

FAILED, UNUSABLE, TIMED_OUT = 1, 2, 124
LONGEST = 1_400  # characters of an error

OPTIONS = {  # of the command, for what the library calls them
    "keras_adjoint.autoencoder": "`keras-adjoint mirror --autoencoder`",
    "resume=False": "--force",
    "memory": "--memory",
    "keras_adjoint.operator(layer, size=...)": "--size",
}
STATUSES = {  # as the help and the documentation have them
    0: "the work is done, and nothing is wrong",
    FAILED: "something is wrong: inspect found no mirror, check a failed test, or none that could be run, doctor an error or "
    "a warning, or what mirror made did not pass its test",
    UNUSABLE: "a file or an option cannot be used; of several files, also if others could be",
    TIMED_OUT: "the time limit, --timeout, is over",
    INTERRUPTED: "it was interrupted, as by Ctrl-C",
}


class Unusable(Exception):
    """A file or an argument that a command can do nothing with. The message is what the user reads."""


class Failed(Unusable):
    """What a command made does not pass its own test."""


class OutputLost(Exception):
    """Standard output cannot be written to, which is said once, at the end of the process."""


def message_of(error: Exception) -> str:
    """What a user reads of an exception: the text of ours, and of others their type as well."""
    from keras_adjoint.errors import KerasAdjointError, in_short

    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}."
    if isinstance(error, MemoryError):
        return f"There is not enough memory for that. {error}".strip()
    speaks_for_itself = isinstance(error, (Unusable, KerasAdjointError, OSError))
    return str(error) if speaks_for_itself else f"{type(error).__name__}: {in_short(error)}"


@contextmanager
def unusable(*errors: type[Exception]) -> Iterator[None]:
    """Let errors of these types, whose messages are made for users, pass as `Unusable`."""
    try:
        yield
    except errors as error:
        raise Unusable(str(error)) from error


def print_error(text: str) -> None:
    """One line on standard error, without its middle where a file had it grow too long to read."""
    from keras_adjoint.errors import shortened

    print(shortened(printable("keras-adjoint: " + sentence(in_options(text))), LONGEST), file=sys.stderr)


def in_options(text: str) -> str:
    """An error of the library with its advice in the options of the command; what was received stays as it is.

    `activation={"conv": "linear", "default": "deconvnet"}` is --policy activation:conv=linear --policy activation=deconvnet.
    """
    advice, received, rest = text.partition("Received: ")
    if "`" not in advice:
        return text
    from keras_adjoint.models.policy_names import NAMES

    policies = "|".join(NAMES)
    advice = re.sub(rf"`({policies})=(\{{[^`{{}}]*\}}|[\"'][^`\"']*[\"'])`", policy_options, advice)
    advice = re.sub(r"`size=\(([\d, ]+)\)`", lambda size: f"--size {size[1].replace(', ', 'x')}", advice)
    for python, option in OPTIONS.items():
        advice = advice.replace(f"`{python}`", option)
    return advice + received + rest


def policy_options(match: re.Match[str]) -> str:
    """The options for a policy that is written as an argument in Python; the argument where it is no literal."""
    policy, code = match.groups()
    try:
        value = ast.literal_eval(code)
    except (SyntaxError, ValueError):
        return match[0]
    choices = value if isinstance(value, dict) else {"default": value}
    settings = [
        f"{policy}={choice}" if layer == "default" else f"{policy}:{layer}={choice}"
        for layer, choice in choices.items()
    ]
    return f"`{' '.join(f'--policy {shlex.quote(setting)}' for setting in settings)}`"


def print_traceback(error: BaseException) -> None:
    """Where an exception comes from, on standard error, without control characters."""
    print(printable("".join(traceback.format_exception(error))), file=sys.stderr, end="")


def sentence(text: str) -> str:
    """A text in one line with a full stop, unless it ends in what was received."""
    line = " ".join(text.split()).rstrip(" ,:;")
    return line if line.endswith((".", "!", "?")) or "Received: " in line else f"{line}."


def no_such_layer(option: str, layer: str, names: Iterable[str]) -> Unusable:
    """The error about the name of a layer that a model does not have: the nearest ones, and where all of them are."""
    return Unusable(
        f"The model has no layer of the name {layer}, but {nearest(layer, names)}; keras-adjoint inspect lists all of them. "
        f"Received: {option} {layer}"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names closest to one that is unknown, else the first few, in one line."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    return ", ".join(near or names[:5]) + (" and others" if not near and len(names) > 5 else "")
