"""Kernels that their stride does not divide, in layers that write overlapping windows."""

import keras

from keras_adjoint.doctor.coverage import coverage, even_taps, times
from keras_adjoint.doctor.finding import NOTE, Finding
from keras_adjoint.layers.conv import AdjointConv

L = keras.layers
NAME = "checkerboard"


def find(patient):
    """A finding for every transposed convolution, adjoints included, that covers its output unevenly."""
    for place, layer in patient.layers:
        if isinstance(layer, (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)):
            owner, fixed = layer, "give it"
        elif isinstance(layer, AdjointConv):
            owner, fixed = layer.source, f"give its source `{layer.source.name}`"
        else:
            continue
        taps, strides = tuple(owner.kernel_size), tuple(owner.strides)
        covered = coverage(taps, strides, owner.dilation_rate)
        if not covered.is_even:
            yield Finding(
                place=place,
                illness=NAME,
                severity=NOTE,
                what=f"its stride {times(strides)} does not divide its kernel {times(taps)}",
                effect=str(covered),
                fix=(
                    f"{fixed} a kernel of {times(even_taps(taps, strides))} and train again, or enlarge by `UpSampling` "
                    f"and convolve at stride 1"
                ),
                figures=covered.figures(),
            )
