"""Every exception that the library raises on purpose, under one base class."""

import re
from typing import TYPE_CHECKING


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


def in_short(error: BaseException) -> str:
    """The line of an error that says what went wrong, without Keras' frame around it and without colours."""
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.startswith("Exception encountered")), type(error).__name__)
