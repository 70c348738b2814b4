"""Adjoints that a copy of a model took over as they are, while their sources were copied."""

import warnings
from collections.abc import Iterator

import keras
from keras.layers import Layer

from keras_adjoint.keras_internals import layers_inside, operations_behind


def warn_behind_copy(adjoint: Layer, source: Layer, y: keras.KerasTensor) -> None:
    """Warn if an adjoint is called behind a copy of its source, and not behind the source.

    Args:
        adjoint: An adjoint layer, which was called before.
        source: The layer whose kernel it reads.
        y: The symbolic tensor that it is called with.
    """
    copied = False
    for operation in operations_behind(y):
        if operation is adjoint:  # what is behind that call was looked at then
            return
        for layer in _layers(operation):
            if layer is source:
                return
            copied = copied or (type(layer) is type(source) and layer.name == source.name)
    if copied:
        warnings.warn(
            f"`{adjoint.name}` is tied to the kernel of one layer `{source.name}`, and is called here behind another, as by a "
            f"`clone_function` that makes new layers and keeps adjoints as they are. So it reads and trains the kernel of the "
            f"model that was copied. Use `keras_adjoint.clone_tied(model)`, or call the `adjoint` of the new layer.",
            stacklevel=3,
        )


def _layers(operation: keras.Operation) -> Iterator[keras.Operation]:
    """An operation, and the layers in it that it calls."""
    yield operation
    if isinstance(operation, Layer) and not _holds_source(operation):
        for layer in layers_inside(operation, recursive=False):
            yield from _layers(layer)


def _holds_source(layer: Layer) -> bool:
    """Whether a layer is an adjoint, which holds a source that was not called."""
    return hasattr(layer, "source") and hasattr(layer, "tied")
