"""What a layer adds to its linear part: A x + b for its biases and shifts b, which is what it gives of zero."""

from typing import Any

import keras
from keras import ops, tree

from keras_adjoint.layers.tied import call_at_inference, stand_in
from keras_adjoint.layers.wrapped import WRAPPERS
from keras_adjoint.operators.operator import Operator

BIASES = ("none", "subtract")


def check_offset(mode: str, source: keras.layers.Layer, linear_part: bool) -> None:
    """Raise a ValueError unless it is known what to subtract: of a model without its activations it is not."""
    if mode == "subtract" and linear_part and isinstance(source, keras.Model):
        raise ValueError(
            f"What a model adds is what it gives of zero, and its activations are part of that. Make a model that ends before "
            f"its activation, and leave out `linear_part`. Received: bias={mode!r}, linear_part=True, {source!r}"
        )


def less_offset(source: keras.layers.Layer, operator: Operator, y: Any) -> Any:
    """y less what the source gives of zero, without its activation, at inference."""
    zero = operator.in_space.pack([ops.zeros((1, *shape), operator.dtype) for shape in operator.in_space.shapes])
    offset = tree.flatten(call_at_inference(_without_activation(source), zero))
    leaves = operator.out_space.leaves(y, operator.dtype, repr(operator))
    return operator.out_space.pack(
        [leaf - ops.cast(each, operator.dtype) for leaf, each in zip(leaves, offset, strict=True)]
    )


def _without_activation(layer: keras.layers.Layer) -> keras.layers.Layer:
    """An object that computes what the layer does before its activation."""
    if isinstance(layer, WRAPPERS):
        return stand_in(layer, {"layer": _without_activation(layer.layer)})
    is_plain = getattr(layer, "activation", None) in (None, keras.activations.linear)
    return layer if is_plain else stand_in(layer, {"activation": keras.activations.linear})
