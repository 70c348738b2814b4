"""Transposed convolutions of models that an old Keras trained on PyTorch.

With padding "same", (m − 1)·s + reach positions are cut down to the size that Keras promises, here by e of them: ⌊e / 2⌋ in
front. PyTorch crops the same number on both sides, so Keras before 3.15 cropped ⌈e / 2⌉ in front and let PyTorch add the
position behind again: where e is odd, everything came out one position too early
(https://github.com/keras-team/keras/pull/22876). A network that was trained so computes something else now.
"""

import keras
import numpy as np

from keras_adjoint.doctor.finding import ERROR, NOTE, Finding
from keras_adjoint.ops.algorithms.choose import adjoint_convolution
from keras_adjoint.ops.dot_test import evaluate, random_probe
from keras_adjoint.ops.geometry import Convolution, TransposedWindow

L = keras.layers
NAME = "shifted by an old Keras"
SIZE, DTYPE = 8, "float32"  # of the features that the effect is measured on
FIRST, FIXED = (3, 0, 0), (3, 15, 0)  # versions that run on PyTorch, and that shift nothing


def find(patient):
    """A finding for every layer that PyTorch shifted, where the file says that it may have run there."""
    version, backend = patient.origin.version, patient.origin.backend
    if version is None or not FIRST <= version < FIXED or backend not in (None, "torch"):
        return
    for place, layer in patient.layers:
        if isinstance(layer, (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)):
            crops = [cropped(window) for window in windows_of(layer)]
            shifts = [front_then - front for front, _, front_then in crops]
            if layer.padding == "same" and any(shifts):
                yield finding(place, layer, crops, shifts, version, backend)


def windows_of(layer):
    outward = layer.output_padding or (None,) * layer.rank
    per_axis = zip(layer.kernel_size, layer.strides, layer.dilation_rate, outward, strict=True)
    return [TransposedWindow(taps, s, d, layer.padding, extra) for taps, s, d, extra in per_axis]


def cropped(window):
    """(positions cropped in front today, behind today, in front by an old Keras on PyTorch) of the whole result."""
    everything = (2 - 1) * window.stride + window.reach  # of two positions, for any number gives the same answer
    extra = max(everything - window.outputs(2), 0)
    return extra // 2, extra - extra // 2, (extra + 1) // 2 if window.stride > 1 else extra // 2


def finding(place, layer, crops, shifts, version, backend):
    written = ".".join(map(str, version))
    known = backend == "torch"
    relative = relative_change(layer, shifts)
    unless = "" if known else "; if it was trained on TensorFlow or JAX, nothing is wrong"
    return Finding(
        place=place,
        illness=NAME,
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


def old_values(layer, crops):
    """How to compute what was computed then, in words."""
    if layer.output_padding is not None:
        return ""
    pairs = tuple((front_then, front + behind - front_then) for front, behind, front_then in crops)
    cropping = f"Cropping{layer.rank}D({pairs[0] if layer.rank == 1 else pairs})"
    return f', or have the old values by `{type(layer).__name__}(…, padding="valid")` with `{cropping}` behind it'


def relative_change(layer, shifts):
    """‖shifted − unshifted‖ / ‖unshifted‖ of what the layer makes of random features, without bias and activation."""
    kernel = keras.ops.convert_to_tensor(layer.kernel, DTYPE)
    y = random_probe((1, *(SIZE for _ in shifts), kernel.shape[-1]), DTYPE, np.random.default_rng(0))
    geometry = Convolution(tuple(window.at(window.outputs(SIZE)) for window in windows_of(layer)))
    values = evaluate(lambda y: adjoint_convolution(y, kernel, geometry), y, DTYPE)
    early = values[(slice(None), *(slice(shift, None) for shift in shifts))]
    today = values[(slice(None), *(slice(None, -shift or None) for shift in shifts))]
    return float(np.linalg.norm(early - today) / np.linalg.norm(today))
