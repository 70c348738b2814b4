"""The adjoints of slices and of padding, which put zeros around a tensor and take them away."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.layers.arguments import is_symbolic
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Cotangents
from keras_adjoint.models.rearrangements import KNOWN_SIZE

Tensors = list[keras.KerasTensor]
Widths = tuple[int, int]


def indexed(call: Call, ys: Tensors) -> Cotangents:
    """Slices, single indices, `None` and `...`: every value goes back to where it was read, and zeros to everywhere else.

    First the axes are brought back that the index removed or added, then each axis that was cut is filled with zeros.
    """
    (x,), (y,) = call.inputs, ys
    widths: list[Widths] = []
    axis = 0  # of x
    for entry in entries(call, len(x.shape)):
        if entry is None:
            y = ops.squeeze(y, axis)
            continue
        if isinstance(entry, slice):
            y, width = spread(call, y, entry, axis, x.shape[axis])
        else:
            y, width = ops.expand_dims(y, axis), single(call, int(entry), x.shape[axis])
        widths.append(width)
        axis += 1
    return [padded_by(y, widths)]


def entries(call: Call, rank: int) -> Iterator[Any]:
    """What an index says about each axis, `...` written out.

    Raises:
        NoRuleError: If the index is more than slices, integers, `None` and `...`.
    """
    key = _key(call)
    if not is_basic(call):
        raise NoRuleError(
            f"The adjoint of an index is known for slices, integers, `None` and `...`. Use `keras.ops.take`, or a layer. "
            f"Received: index {key!r} at `{call.place}`"
        )
    rest = [slice(None)] * (rank - sum(entry is not None and entry is not Ellipsis for entry in key))
    if not any(entry is Ellipsis for entry in key):
        key = (*key, Ellipsis)
    for entry in key:
        yield from rest if entry is Ellipsis else [entry]


def is_basic(call: Call) -> bool:
    """Whether an index has no more than slices, integers, `None` and `...`."""
    return all(
        entry is None or entry is Ellipsis or isinstance(entry, slice) or is_integer(entry) for entry in _key(call)
    )


def _key(call: Call) -> tuple[Any, ...]:
    key = call.parameters["key"]
    return tuple(key) if isinstance(key, (tuple, list)) else (key,)


def is_integer(entry: Any) -> bool:
    return hasattr(entry, "__index__") and not isinstance(entry, bool) and not hasattr(entry, "shape")


def single(call: Call, index: int, size: int | None) -> Widths:
    """How many zeros stand before and after one index."""
    if size is None:
        raise unknown(call, index)
    return index % size, size - 1 - index % size


def spread(
    call: Call, y: keras.KerasTensor, cut: slice, axis: int, size: int | None
) -> tuple[keras.KerasTensor, Widths]:
    """(the slice in rising order with zeros between its values, how many zeros stand before and after it)."""
    if cut == slice(None):
        return y, (0, 0)
    start, stop, step = cut.start, cut.stop, 1 if cut.step is None else int(cut.step)
    if size is None:
        if step == 1 and (start or 0) >= 0 and (stop is None or stop < 0):  # counted from the ends, whatever the size
            return y, (int(start or 0), -int(stop or 0))
        raise unknown(call, cut)
    positions = range(size)[cut]
    if not positions:
        return y, (0, size)  # nothing comes back
    if step < 0:
        y, positions = ops.flip(y, axis=axis), positions[::-1]
    if positions.step > 1 and len(positions) > 1:
        y = zeros_between(y, axis, positions.step, len(positions))
    return y, (positions[0], size - 1 - positions[-1])


def zeros_between(y: keras.KerasTensor, axis: int, step: int, count: int) -> keras.KerasTensor:
    """`y` with `step` - 1 zeros between its `count` values along an axis: zeros beside each on a new axis, which is merged."""
    rank = len(y.shape)
    wide = padded_by(
        ops.expand_dims(y, axis + 1), [(0, 0)] * (axis + 1) + [(0, step - 1)] + [(0, 0)] * (rank - axis - 1)
    )
    shape = tuple(-1 if size is None else size for size in (*y.shape[1:axis], count * step, *y.shape[axis + 1 :]))
    if shape.count(-1) > 1:
        raise SizeError(
            f"A slice with a step has no adjoint beside several unknown sizes. {KNOWN_SIZE} Received: {y.shape}"
        )
    merged = keras.layers.Reshape(shape, dtype=y.dtype)(wide)
    return merged[(slice(None),) * axis + (slice(0, (count - 1) * step + 1),)]


def padded_by(y: keras.KerasTensor, widths: list[Widths]) -> keras.KerasTensor:
    """`y` with so many zeros before and after it along each axis."""
    return ops.pad(y, [list(width) for width in widths]) if any(map(any, widths)) else y


def padded(call: Call, ys: Tensors) -> Cotangents:
    """Padding writes a window and leaves constants around it; its adjoint reads the window."""
    cuts = [slice(before or None, -after if after else None) for before, after in widths_of(call)]
    return [ys[0][tuple(cuts)]]


def widths_of(call: Call) -> list[Widths]:
    """How much a padding writes before and after what there is, along each axis."""
    widths = [(int(before), int(after)) for before, after in call.operation.pad_width]
    return widths * len(call.inputs[0].shape) if len(widths) == 1 else widths


def slice_updated(call: Call, ys: Tensors) -> Cotangents:
    """A tensor of which a part is replaced by another: that part goes to the one, everything else to the other."""
    x, start, new = (call.parameters[name] for name in ("inputs", "start_indices", "updates"))
    start = [int(index) for index in np.ravel(start)] if not any(map(is_symbolic, tree.flatten(start))) else None
    if start is None or None in x.shape[1:] or None in new.shape[1:]:
        raise NoRuleError(
            f"`{call.place}` replaces a part of a tensor, whose place and size must be known when the model is made. Received: "
            f"tensors of shape {tuple(x.shape)} and {tuple(new.shape)}"
        )
    part = tuple(slice(first, first + size) for first, size in zip(start[1:], new.shape[1:], strict=True))
    kept = np.ones((1, *x.shape[1:]), "float64" if ys[0].dtype == "float64" else "float32")
    kept[(slice(None), *part)] = 0
    parts = ((x, ops.multiply(ys[0], kept)), (new, ys[0][(slice(None), *part)]))
    return [cotangent for tensor, cotangent in parts if is_symbolic(tensor)]


def unknown(call: Call, entry: Any) -> SizeError:
    return SizeError(
        f"`{call.place}` reads {entry!r} along an axis of unknown size, so its adjoint cannot tell how much surrounds it. "
        f"{KNOWN_SIZE} Received: shape {tuple(call.inputs[0].shape)}"
    )
