"""Integers in a graph: they may be moved and made floats, but casts to them truncate, and sums of them wrap around."""

import keras
import numpy as np

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import core_operations, existing, numpy_operations
from keras_adjoint.models.calls import Call

# Layers that give integers of integers, although Keras announces floats of some of them. These move the integers ...
_MOVING_LAYERS: tuple[type, ...] = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.RepeatVector,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.Concatenate,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.UpSampling1D,  # that of two axes may interpolate
    keras.layers.UpSampling3D,
)
# ... and these calculate with them.
_CALCULATING_LAYERS: tuple[type, ...] = (
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Average,
    keras.layers.Multiply,
)
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
        self._unannounced: set[int] = set()  # identities of tensors that hold integers, although Keras announces floats
        for call in calls:
            keeps = isinstance(call.operation, _MOVING_LAYERS + _CALCULATING_LAYERS)
            if keeps and call.inputs and all(map(self._holds, call.inputs)):
                self._unannounced.update(map(id, call.outputs))

    def change(self, call: Call) -> bool:
        """Whether a call gives integers that are no linear function of what it is called with."""
        if not call.inputs or not all(map(self._holds, call.outputs)):
            return False
        if not all(map(self._holds, call.inputs)):
            return True
        if isinstance(call.operation, core_operations.Cast):
            return not np.can_cast(call.inputs[0].dtype, call.outputs[0].dtype)
        return not isinstance(call.operation, _MOVING_LAYERS + _MOVING_OPERATIONS)

    def check(self, call: Call) -> None:
        """Raise a NoRuleError if a call calculates with integers, or gives integers of floats."""
        computes_in = getattr(call.operation, "compute_dtype", None)  # of a layer
        if self.change(call) or "float" not in (computes_in or "float"):
            kind = type(call.operation).__name__
            raise NoRuleError(
                f"`{call.place}` gives integers, in which nothing but moving them is linear: a cast to an integer truncates, "
                f'and sums and products of integers wrap around. Cast to a float first, by `keras.ops.cast(x, "float32")`. '
                f"Received: {kind} from {_dtypes(call.inputs)} to {computes_in or _dtypes(call.outputs)}"
            )

    def _holds(self, tensor: keras.KerasTensor) -> bool:
        return "float" not in tensor.dtype or id(tensor) in self._unannounced


def _dtypes(tensors: list[keras.KerasTensor]) -> str:
    return " and ".join(dict.fromkeys(x.dtype for x in tensors)) or "nothing"
