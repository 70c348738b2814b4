"""What a call does to the batch axis: nothing, or what it gives for a sample depends on others, too."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import tree

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import core_operations, existing, nn_operations, numpy_operations
from keras_adjoint.layers.arguments import is_symbolic
from keras_adjoint.models.calls import Call
from keras_adjoint.models.indexing import entries, is_basic, widths_of
from keras_adjoint.models.rearrangements import normalized, order_of
from keras_adjoint.models.steps import calls_at_every_step
from keras_adjoint.ops import Shape

Check: TypeAlias = Callable[[Call], None]

ONE_SAMPLE = "Use tensors of as many axes, and a constant of one sample, as in `constant[:1]`"


def check_batch_axis(call: Call) -> None:
    """Raise a NoRuleError if a call works along the batch axis, or moves it.

    What is in none of the tables here leaves it alone, or has no rule and is tested on several samples.
    """
    if not isinstance(call.operation, keras.layers.Layer):
        if type(call.operation) in OPERATIONS:
            OPERATIONS[type(call.operation)](call)
        if not all(len(x.shape) for x in (*call.inputs, *call.outputs)):
            raise mixes_samples(call, "takes or gives a single number for all samples")
        return
    layer, rank = call.operation, len(call.outputs[0].shape)
    while calls_at_every_step(layer):
        layer, rank = layer.layer, rank - 1
    axes_of = next((LAYERS[base] for base in type(layer).__mro__ if base in LAYERS), None)
    if axes_of is not None:
        check_axes(call, normalized(axes_of(layer), rank), rank)


def check_axes(call: Call, axes: Iterable[int], rank: int) -> None:
    """Raise a NoRuleError if the batch axis is among the axes, of tensors of that rank, that an operation works along."""
    if 0 in axes:
        raise mixes_samples(call, f"works along axis 0 of tensors with {rank} axes")


def mixes_samples(call: Call, what: str, instead: str = "Use another axis") -> NoRuleError:
    """The error about a call that mixes samples or moves the batch axis, with what to do instead."""
    return NoRuleError(
        f"`{call.place}` {what}. The first axis is that of the samples, and what a model does is followed sample by sample, so "
        f"nothing may be moved into it, out of it or along it. {instead}. Received: {type(call.operation).__name__} of shapes "
        f"{', '.join(str(tuple(x.shape)) for x in call.inputs)}"
    )


# --- layers: the axes that they work along, numbered from the batch axis

LAYERS: dict[type, Callable[[Any], Any]] = {
    keras.layers.Concatenate: lambda layer: layer.axis,
    keras.layers.BatchNormalization: lambda layer: layer.axis,
    keras.layers.LayerNormalization: lambda layer: layer.axis,
    keras.layers.Softmax: lambda layer: layer.axis,
    keras.layers.UnitNormalization: lambda layer: layer.axis,
}


# --- operations


def _all_axes(shape: Shape) -> Iterable[int]:
    return range(len(shape))


def _axes_of_one(shape: Shape) -> Iterable[int]:
    return [axis for axis, size in enumerate(shape) if size == 1]


def _along(tensors: str, otherwise: Callable[[Shape], Iterable[int]] = _all_axes) -> Check:
    """The check of an operation that works along its `axis`.

    Args:
        tensors: "inputs" or "outputs", whose axis it is.
        otherwise: The axes of a shape that it works along if it has none.
    """

    def check(call: Call) -> None:
        shape, axis = tuple(getattr(call, tensors)[0].shape), call.operation.axis
        check_axes(call, otherwise(shape) if axis is None else normalized(axis, len(shape)), len(shape))

    return check


def _check_broadcast(call: Call) -> None:
    wide = tuple(call.outputs[0].shape)
    for x in call.inputs:
        shape = tuple(x.shape)
        if len(shape) < len(wide) or shape[0] != wide[0]:
            raise mixes_samples(
                call, f"broadcasts the samples of a tensor of shape {shape} to shape {wide}", ONE_SAMPLE
            )
    for constant in call.constants:
        sizes = np.shape(constant)
        if len(sizes) == len(wide) and sizes[0] not in (1, wide[0]):
            raise mixes_samples(call, f"takes a constant of {sizes[0]} samples, shape {sizes}", ONE_SAMPLE)


def _check_reshape(call: Call) -> None:
    """Each sample is reshaped for itself if samples keep their number."""
    before, after = tuple(call.inputs[0].shape), tuple(call.outputs[0].shape)
    same_number = bool(before and after) and before[0] is not None and before[0] == after[0]
    numbers = [None if None in shape[1:] or not shape else int(np.prod(shape[1:])) for shape in (before, after)]
    if not same_number and (None in numbers or numbers[0] != numbers[1]):
        raise mixes_samples(
            call,
            f"reshapes tensors of shape {before} to {after}, where samples may not stay what they were",
            "Use a `keras.layers.Reshape`, which reshapes sample by sample",
        )


def _check_order(call: Call) -> None:
    order = order_of(call)
    if order[0] != 0:
        what = f"moves the first axis: the order of axes is {tuple(order)}"
        raise mixes_samples(call, what, "Use a `keras.layers.Permute`, which leaves the first axis where it is")


def _check_index(call: Call) -> None:
    if not is_basic(call):
        return
    first = next(entries(call, len(call.inputs[0].shape)))
    if first is None:
        raise mixes_samples(call, "puts a new axis before the first one")
    if not (isinstance(first, slice) and first == slice(None)):
        raise mixes_samples(call, f"selects samples by {first!r}")


def _check_padding(call: Call) -> None:
    first = widths_of(call)[0]
    if any(first):
        raise mixes_samples(call, f"pads the first axis by {first}")


def _check_update(call: Call) -> None:
    x, start, new = (call.parameters[name] for name in ("inputs", "start_indices", "updates"))
    if any(map(is_symbolic, tree.flatten(start))):
        return
    first = int(np.ravel(start)[0])
    if first != 0 or new.shape[0] != x.shape[0]:
        raise mixes_samples(call, f"replaces {new.shape[0]} samples from sample {first} on")


OPERATIONS: dict[type, Check] = {
    **dict.fromkeys(
        existing(numpy_operations, "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum"),
        _check_broadcast,
    ),
    **dict.fromkeys(existing(numpy_operations, "Sum", "Mean", "Max", "Min", "Amax", "Amin", "Flip"), _along("inputs")),
    numpy_operations.Cumsum: _along("inputs", lambda shape: [0]),
    nn_operations.Softmax: _along("inputs"),
    nn_operations.LogSoftmax: _along("inputs"),
    **dict.fromkeys(existing(numpy_operations, "Concatenate", "Split", "ArraySplit"), _along("inputs")),
    core_operations.Unstack: _along("inputs"),
    numpy_operations.Stack: _along("outputs"),
    numpy_operations.ExpandDims: _along("outputs"),
    numpy_operations.Squeeze: _along("inputs", _axes_of_one),
    numpy_operations.Reshape: _check_reshape,
    **dict.fromkeys(existing(numpy_operations, "Transpose", "Swapaxes", "Moveaxis"), _check_order),
    numpy_operations.GetItem: _check_index,
    numpy_operations.Pad: _check_padding,
    core_operations.SliceUpdate: _check_update,
}
