"""Every exception that the library raises on purpose, under one base class, and the one message about unknown names."""

import difflib
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

LONGEST = 600  # characters of an error of others


class KerasAdjointError(Exception):
    """Base class: `except keras_adjoint.KerasAdjointError` catches everything below."""

    if not TYPE_CHECKING:  # type checkers take a class with an assigned `__init__` for `Any`
        # TensorFlow raises an error from a graph as itself only if its class has the `__init__` of `Exception`.
        __init__ = Exception.__init__


class NoRuleError(KerasAdjointError, NotImplementedError):
    """No adjoint is known for a layer, or the known one does not hold for it."""


class TieError(KerasAdjointError, ValueError):
    """The kernel of a source cannot be read: unbuilt, quantised beyond recovery, or gone."""


class SizeError(KerasAdjointError, ValueError):
    """The size of the adjoint's output is ambiguous, or impossible for the given source."""


def one_of(option: str, value: Any, names: Collection[str]) -> str:
    """`value`, if it is among the names that an option takes.

    Raises:
        ValueError: If it is not. The message has all of them, and the nearest one.
    """
    if not isinstance(value, str) or value not in names:
        raise unknown_name(option, value, f"must be one of {quoted(names)}", names)
    return value


def unknown_name(option: str, value: Any, takes: str, names: Collection[str]) -> ValueError:
    """The error about a name that an option does not know: what it takes, in words, and the nearest of some names."""
    return ValueError(f"`{option}` {takes}.{did_you_mean(value, names)} Received: {option}={value!r}")


def did_you_mean(value: Any, names: Collection[str]) -> str:
    """A question, after a space, with the nearest of some names; "" if none is near."""
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(value.lower(), lower, n=1) if isinstance(value, str) else []
    return f' Did you mean "{lower[near[0]]}"?' if near else ""


def quoted(names: Collection[str]) -> str:
    """Names in quotation marks, in a line."""
    return ", ".join(f'"{name}"' for name in names)


def with_article(name: str) -> str:
    """A name with the article that fits its first letter: a Dense, an Embedding."""
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def in_short(error: BaseException) -> str:
    """The line of an error that says what went wrong, without Keras' frame around it, without colours, and not too long."""
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).strip() for line in str(error).splitlines()]
    said = next((line for line in lines if line and not line.startswith("Exception encountered")), "")
    return shortened(said) if said else type(error).__name__


def shortened(text: str, most: int = LONGEST) -> str:
    """A text of others, without its middle if it is longer than a few lines: some print all numbers that they were given."""
    return text if len(text) <= most else f"{text[: most - 100]} … {text[-97:]}"
