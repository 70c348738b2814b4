"""Rules about transposed convolutions by themselves: those that an old Keras shifted, and operations that do not run.

With padding "same", Keras cuts what a transposed convolution gives to the size that it promises, by e positions of which
⌊e / 2⌋ are in front. PyTorch crops the same number on both sides, so Keras before 3.15 cropped ⌈e / 2⌉ in front and had
PyTorch add the position at the end again: where e is odd, everything came out one position too early
(https://github.com/keras-team/keras/pull/22876). A network that was trained so computes something else now.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_adjoint.doctor.finding import ERROR, NOTE, Finding
from keras_adjoint.doctor.models.context import ModelContext
from keras_adjoint.doctor.rules import OPERATION_DOES_NOT_RUN, SHIFTED
from keras_adjoint.errors import in_short
from keras_adjoint.keras_internals import nn_operations
from keras_adjoint.models.calls import Call
from keras_adjoint.ops.algorithms.choose import adjoint_convolution
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.dot_test import evaluate, random_probe
from keras_adjoint.ops.geometry import Convolution, TransposedWindow

L = keras.layers
SIZE, DTYPE = 8, "float32"  # of the features that the effect is measured on
FIRST, FIXED = (3, 0, 0), (3, 15, 0)  # versions that run on PyTorch, and that shift nothing

Crop: TypeAlias = tuple[
    int, int, int
]  # positions in front today, at the end today, in front by an old Keras on PyTorch


def find_shifted(context: ModelContext) -> Iterator[Finding[Any]]:
    """A finding for every layer that PyTorch shifted, where the file says that it may have run there."""
    version, backend = context.origin.version, context.origin.backend
    if version is None or not FIRST <= version < FIXED or backend not in (None, "torch"):
        return
    if current().SHIFTS_CONV_TRANSPOSE:
        return  # this Keras computes what that one did
    for place, layer in context.layers:
        if isinstance(layer, (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)):
            crops = [cropped(window) for window in windows_of(layer)]
            shifts = [front_then - front for front, _, front_then in crops]
            if layer.padding == "same" and any(shifts):
                yield shifted(place, layer, crops, shifts, version, backend)


def windows_of(layer: keras.layers.Layer) -> list[TransposedWindow]:
    outward = layer.output_padding or (None,) * layer.rank
    per_axis = zip(layer.kernel_size, layer.strides, layer.dilation_rate, outward, strict=True)
    return [TransposedWindow(taps, s, d, layer.padding, extra) for taps, s, d, extra in per_axis]


def cropped(window: TransposedWindow) -> Crop:
    """What is cropped of the whole result."""
    everything = (2 - 1) * window.stride + window.dilated_taps  # of two positions, for any number gives the same answer
    extra = max(everything - window.outputs(2), 0)
    return extra // 2, extra - extra // 2, (extra + 1) // 2 if window.stride > 1 else extra // 2


def shifted(
    place: str,
    layer: keras.layers.Layer,
    crops: list[Crop],
    shifts: list[int],
    version: tuple[int, ...],
    backend: str | None,
) -> Finding[Any]:
    written = ".".join(map(str, version))
    known = backend == "torch"
    relative = relative_change(layer, shifts)
    unless = "" if known else "; if it was trained on TensorFlow or JAX, nothing is wrong"
    return Finding(
        place=place,
        rule=SHIFTED.name,
        severity=ERROR if known else NOTE,
        what=f"the model was saved by Keras {written}"
        + (" on PyTorch" if known else "; if it was trained on PyTorch:"),
        effect=(
            f"its values came {' and '.join(map(str, shifts))} positions too early along its axes, which changes them by "
            f"{relative:.0%} of their size on random features"
        ),
        fix=f"train it further{old_values(layer, crops)} (by hand){unless}",
        figures={"shift": shifts, "relative_change": relative},
    )


def old_values(layer: keras.layers.Layer, crops: list[Crop]) -> str:
    """How to compute what was computed then, in words."""
    if layer.output_padding is not None:
        return ""
    pairs = tuple((front_then, front + after - front_then) for front, after, front_then in crops)
    cropping = f"Cropping{layer.rank}D({pairs[0] if layer.rank == 1 else pairs})"
    return f', or get the old values by `{type(layer).__name__}(…, padding="valid")` followed by `{cropping}`'


def relative_change(layer: keras.layers.Layer, shifts: list[int]) -> float:
    """‖shifted − unshifted‖ / ‖unshifted‖ of what the layer makes of random features, without bias and activation."""
    kernel = keras.ops.convert_to_tensor(layer.kernel, DTYPE)
    y = random_probe((1, *(SIZE for _ in shifts), kernel.shape[-1]), DTYPE, np.random.default_rng(0))
    geometry = Convolution(tuple(window.at(window.outputs(SIZE)) for window in windows_of(layer)))
    values = evaluate(lambda y: adjoint_convolution(y, kernel, geometry), y, DTYPE)
    early = values[(slice(None), *(slice(shift, None) for shift in shifts))]
    today = values[(slice(None), *(slice(None, -shift or None) for shift in shifts))]
    return float(np.linalg.norm(early - today) / np.linalg.norm(today))


def find_broken_operations(context: ModelContext) -> Iterator[Finding[Any]]:
    """A finding for every transposed convolution as an operation of the graph, where this Keras refuses to run it.

    `ConvTranspose.call` passes `output_padding` to the backend in the place of `padding`, and the other way round. The
    function `ops.conv_transpose` on plain tensors does not.
    """
    for call in context.calls:
        if type(call.operation) is nn_operations.ConvTranspose:
            error = error_of(call)
            if error is not None:
                yield Finding(
                    place=call.path,
                    rule=OPERATION_DOES_NOT_RUN.name,
                    severity=ERROR,
                    what="`ops.conv_transpose` is an operation of the graph",
                    effect=f"Keras {keras.__version__} builds such a graph and cannot run it: {in_short(error)}",
                    fix="use a layer, `keras_adjoint.adjoint` or a `Conv*Transpose` (by hand)",
                )


def error_of(call: Call) -> Exception | None:
    """What a call of an operation raises on zeros, or `None`."""
    arguments = [
        keras.ops.zeros([size or 1 for size in argument.shape], argument.dtype)
        if isinstance(argument, keras.KerasTensor)
        else argument
        for argument in call.parameters.values()
    ]
    try:
        call.operation.call(*arguments)
    except Exception as error:
        return error
    return None
