"""Transposed convolutions that cannot return the size that the encoder had.

A stride of s maps s neighbouring sizes to one, and `Conv*Transpose` answers with one of them whatever the size was: 45
becomes 23, and 23 becomes 46. Strided and enlarging layers are matched as brackets are: a layer that enlarges undoes the
last strided layer that is not undone yet.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

from keras_adjoint.doctor.finding import WARNING, Finding
from keras_adjoint.doctor.models.context import ModelContext
from keras_adjoint.doctor.rules import SIZE_LOST
from keras_adjoint.layers.sizes import spatial
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.calls import Call
from keras_adjoint.models.text import size_text

L = keras.layers
TRANSPOSED = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
UP_SAMPLING = (L.UpSampling1D, L.UpSampling2D, L.UpSampling3D)
POOLING = (
    *(L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D),
    *(L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D),
)
CONVOLUTIONS = (
    *(L.Conv1D, L.Conv2D, L.Conv3D),
    *(L.DepthwiseConv1D, L.DepthwiseConv2D, L.SeparableConv1D, L.SeparableConv2D),
)
RESIZING = (
    *(L.Cropping1D, L.Cropping2D, L.Cropping3D),
    *(L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D),
    *(L.Resizing, L.CenterCrop),
)


@dataclass(frozen=True)
class Step:
    """A layer with a stride, and what it made of the sizes."""

    place: str
    layer: keras.layers.Layer
    strides: tuple[int, ...]
    before: tuple[int | None, ...]
    after: tuple[int | None, ...]


Stack: TypeAlias = tuple[Step, ...] | None  # steps that are not undone yet; `None` if that is ambiguous


def find_lost_sizes(context: ModelContext) -> Iterator[Finding[Any]]:
    """A finding for every transposed convolution that returns another size than the layer had that it undoes."""
    opened: dict[int, Stack] = {}  # the steps that lead to a tensor, by its `id`
    for call in context.calls:
        stacks = [opened.get(id(tensor), ()) for tensor in call.inputs]
        stack = stacks[0] if stacks and all(same_sizes(stack, stacks[0]) for stack in stacks) else None
        place = call.path
        step = step_of(place, call)
        if stack is not None and step is not None:
            if enlarges(call.operation):
                if stack and misses(stack[-1], step):
                    yield lost_size(context, stack[-1], step, call)
                stack = closed(stack, step.strides)
            else:
                stack = (*stack, step)
        opened.update((id(tensor), stack) for tensor in call.outputs)


def step_of(place: str, call: Call) -> Step | None:
    """The `Step` of a layer with a stride; `None` for all other calls."""
    layer = call.operation
    if isinstance(layer, UP_SAMPLING):
        size = layer.size
        strides = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    elif isinstance(layer, (*TRANSPOSED, *POOLING, *CONVOLUTIONS)):
        strides = tuple(layer.strides)
    elif isinstance(layer, Tied) and isinstance(layer.source, (*POOLING, *CONVOLUTIONS)):
        strides = tuple(layer.source.strides)
    else:
        return None
    if all(stride == 1 for stride in strides):
        return None
    data_format = getattr(layer, "data_format", "channels_last")
    before, after = (spatial(tensors[0].shape, data_format) for tensors in (call.inputs, call.outputs))
    return Step(place, layer, strides, before, after)


def enlarges(layer: object) -> bool:
    return isinstance(layer, (*TRANSPOSED, *UP_SAMPLING, Tied))


def same_sizes(stack: Stack, other: Stack) -> bool:
    """Whether two paths to a tensor went through the same sizes; a residual branch has layers of its own."""
    if stack is None or other is None:
        return stack is other
    return [(s.strides, s.before, s.after) for s in stack] == [(s.strides, s.before, s.after) for s in other]


def closed(stack: Stack, strides: tuple[int, ...]) -> Stack:
    """The stack without the steps that strides undo; `None` if they do not undo whole steps."""
    remaining = list(strides)
    while stack and any(stride > 1 for stride in remaining):
        *rest, last = stack
        if len(last.strides) != len(remaining) or any(r % s for r, s in zip(remaining, last.strides, strict=True)):
            return None
        remaining = [r // s for r, s in zip(remaining, last.strides, strict=True)]
        stack = tuple(rest)
    return stack


def misses(opening: Step, closing: Step) -> bool:
    """Whether a transposed convolution undoes a step, but for the size."""
    sizes = zip(closing.after, opening.before, closing.strides, strict=True)
    return (
        isinstance(closing.layer, (*TRANSPOSED, Tied))
        and None not in (*opening.after, *closing.before)
        and opening.strides == closing.strides
        and opening.after == closing.before
        and opening.before != closing.after
        and all(
            size is not None and wanted is not None and abs(size - wanted) < max(stride, 2)
            for size, wanted, stride in sizes
        )
    )


def lost_size(context: ModelContext, opening: Step, closing: Step, call: Call) -> Finding[Any]:
    wanted, found = size_text(opening.before), size_text(closing.after)
    effect = f"{wanted} becomes {size_text(opening.after)} in `{opening.place}`, and that becomes {found} here"
    after = next_resize(context, call)
    if after is not None:
        effect += f", which `{after.path}` then changes; at the wrong end, every value is off by a position"
    kind = "keras_adjoint.mirror" if isinstance(opening.layer, POOLING) else "keras_adjoint.adjoint"
    return Finding(
        place=closing.place,
        rule=SIZE_LOST.name,
        severity=WARNING,
        what=f"it undoes `{opening.place}`, but for the size",
        effect=effect,
        fix=f"`{kind}` of `{opening.place}` by itself returns {wanted} (by hand: the layers after it expect {found})",
        figures={
            "size": list(opening.before),
            "code": list(opening.after),
            "returned": list(closing.after),
        },
    )


def next_resize(context: ModelContext, call: Call) -> Call | None:
    """The call of a layer that changes the size of what a call returned, if that comes next."""
    made = {id(tensor) for tensor in call.outputs}
    readers = [other for other in context.calls if any(id(tensor) in made for tensor in other.inputs)]
    return next((reader for reader in readers if isinstance(reader.operation, RESIZING)), None)
