"""The rule "checkerboard" in models."""

from collections.abc import Iterator
from typing import Any

import keras

from keras_adjoint.doctor.checkerboards import coverage, even_taps
from keras_adjoint.doctor.finding import NOTE, Finding
from keras_adjoint.doctor.models.context import ModelContext
from keras_adjoint.doctor.rules import CHECKERBOARD
from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.models.text import size_text

L = keras.layers


def find_checkerboards(context: ModelContext) -> Iterator[Finding[Any]]:
    """A finding for every transposed convolution, adjoints included, that covers its output unevenly."""
    for place, layer in context.layers:
        if isinstance(layer, (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)):
            owner, subject = layer, "it"
        elif isinstance(layer, AdjointConv):
            owner, subject = layer.source, f"its source `{layer.source.name}`"
        else:
            continue
        taps, strides = tuple(owner.kernel_size), tuple(owner.strides)
        covered = coverage(taps, strides, owner.dilation_rate)
        if not covered.is_even:
            yield Finding(
                place=place,
                rule=CHECKERBOARD.name,
                severity=NOTE,
                what=f"its stride {size_text(strides)} does not divide its kernel {size_text(taps)}",
                effect=str(covered),
                fix=(
                    f"give {subject} a kernel of {size_text(even_taps(taps, strides))} and train again, or enlarge by "
                    f"`UpSampling` and convolve at stride 1"
                ),
                figures=covered.figures(),
            )
