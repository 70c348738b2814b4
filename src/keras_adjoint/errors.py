"""Every exception that the library raises on purpose, under one base class."""


class KerasAdjointError(Exception):
    """Base class: `except keras_adjoint.KerasAdjointError` catches everything below."""

    # TensorFlow lets an error out of a graph as itself only if its class is made like a plain exception.
    __init__ = Exception.__init__


class NoRuleError(KerasAdjointError, NotImplementedError):
    """No adjoint is known for a layer, or the known one does not hold for it."""


class TieError(KerasAdjointError, ValueError):
    """The kernel of a source cannot be read: unbuilt, quantised beyond recovery, or gone."""


class SizeError(KerasAdjointError, ValueError):
    """The size of the adjoint's output is ambiguous, or impossible for the given source."""
