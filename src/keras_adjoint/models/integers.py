"""Integers in a graph: they may be moved and made floats, but casts to them truncate, and sums of them wrap around."""

import keras
import numpy as np
from keras import ops, tree

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import core_operations, existing, numpy_operations
from keras_adjoint.layers.inference import masking
from keras_adjoint.layers.registry import RULES, class_with_rule
from keras_adjoint.layers.shape import activation, identity
from keras_adjoint.layers.wrapped import inside
from keras_adjoint.models.automatic import is_automatic, pattern_of
from keras_adjoint.models.calls import Call
from keras_adjoint.models.policies import policy_of_class

# Layers that move integers, besides those that are the identity at inference.
_MOVING_LAYERS: tuple[type, ...] = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.RepeatVector,
    keras.layers.Concatenate,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.UpSampling1D,
    keras.layers.UpSampling3D,
)
# Layers that calculate with integers before they make floats of them, if they do.
_CALCULATING_LAYERS: tuple[type, ...] = (
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Average,
    keras.layers.Multiply,
)
_UNKNOWN_SIZE = 12  # what an unknown size is tried with
_MOVING_OPERATIONS: tuple[type, ...] = (
    core_operations.Unstack,
    *existing(
        numpy_operations,
        *("Reshape", "Ravel", "ExpandDims", "Squeeze", "Transpose", "Swapaxes", "Moveaxis", "Concatenate", "Stack"),
        *("Split", "ArraySplit", "Flip", "GetItem", "Pad", "Roll", "Rot90", "Tile", "Repeat", "BroadcastTo", "Take"),
    ),
)


class Integers:
    """What a graph does to integers.

    Args:
        calls: The calls of the graph, in the order in which they are made.
    """

    def __init__(self, calls: list[Call]) -> None:
        self._unannounced: dict[int, str] = {}  # by `id`, dtypes of tensors of which Keras announces floats
        for call in calls:
            if isinstance(call.operation, keras.layers.Layer) and call.inputs and all(map(self._holds, call.inputs)):
                dtypes = given_dtypes(call, [self._dtype(x) for x in call.inputs])
                pairs = zip(call.outputs, dtypes, strict=True)
                self._unannounced.update({id(y): dtype for y, dtype in pairs if "float" in y.dtype and "int" in dtype})

    def change(self, call: Call) -> bool:
        """Whether a call gives integers that are no linear function of what it is called with."""
        calculates = isinstance(call.operation, _CALCULATING_LAYERS) and all(map(self._holds, call.inputs))
        if not call.inputs or not (calculates or all(map(self._holds, call.outputs))):
            return False
        if not all(map(self._holds, call.inputs)):
            return True
        if isinstance(call.operation, core_operations.Cast):
            return not np.can_cast(call.inputs[0].dtype, call.outputs[0].dtype)
        if isinstance(call.operation, keras.layers.Layer):
            return not moves(call)
        return not isinstance(call.operation, _MOVING_OPERATIONS)

    def check(self, call: Call) -> None:
        """Raise a NoRuleError if a call calculates with integers, or gives integers of floats."""
        computes_in = getattr(call.operation, "compute_dtype", None)  # of a layer
        if self.change(call) or "float" not in (computes_in or "float"):
            kind = type(call.operation).__name__
            raise NoRuleError(
                f"`{call.place}` gives integers, in which nothing but moving them is linear: a cast to an integer truncates, "
                f'and sums and products of integers wrap around. Cast to a float first, by `keras.ops.cast(x, "float32")`. '
                f"Received: {kind} from {self._dtypes(call.inputs)} to {computes_in or self._dtypes(call.outputs)}"
            )

    def _holds(self, tensor: keras.KerasTensor) -> bool:
        return "float" not in self._dtype(tensor)

    def _dtype(self, tensor: keras.KerasTensor) -> str:
        return self._unannounced.get(id(tensor), tensor.dtype)

    def _dtypes(self, tensors: list[keras.KerasTensor]) -> str:
        return " and ".join(dict.fromkeys(map(self._dtype, tensors))) or "nothing"


def given_dtypes(call: Call, dtypes: list[str]) -> list[str]:
    """The dtypes of what a layer gives when it is called, on ones of these dtypes, whatever it announces."""
    announced = [y.dtype for y in call.outputs]
    shapes = [tuple(_UNKNOWN_SIZE if size is None else size for size in x.shape[1:]) for x in call.inputs]
    try:
        pattern = pattern_of(call)
        ones = [ops.ones((pattern.samples or 1, *shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        found = [keras.backend.standardize_dtype(y.dtype) for y in tree.flatten(pattern.call(call.operation, ones))]
    except Exception:  # it takes other integers, or sizes
        return announced
    return found if len(found) == len(announced) else announced


def moves(call: Call) -> bool:
    """Whether a layer moves or selects the integers that it is called with, or is tested on integers before it is used."""
    layer = inside(call.operation)
    layer_class = class_with_rule(layer)
    if layer_class is None or is_automatic(call) or isinstance(layer, _MOVING_LAYERS):
        return True
    if isinstance(layer, keras.layers.UpSampling2D):
        return bool(layer.interpolation == "nearest")
    return RULES[layer_class] in (identity, masking, activation) or policy_of_class(layer) in ("activation", "pooling")
