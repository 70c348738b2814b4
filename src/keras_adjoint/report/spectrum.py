"""The singular values of a layer, where they are cheap: of a matrix, and of a convolution that runs around a ring.

On a ring, where the edges meet, the Fourier transform takes a convolution of stride 1 apart into one small matrix for each
frequency, and the singular values of these are together those of the convolution (Sedghi, Gupta and Long 2019, "The
Singular Values of Convolutional Layers"). Of the layer itself, whose edges do not meet, they are an approximation.
"""

from dataclasses import dataclass

import keras
import numpy as np

from keras_adjoint.models.text import size_text
from keras_adjoint.plots.layer_kernels import kernels_of

L = keras.layers
MATRICES = (L.Dense,)
CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D)
BUDGET = 1.5e9  # about how many multiplications a spectrum may cost
LENGTHS = (32, 16, 8, 4)  # how long a ring may be; besides, as long as the kernel
POINTS = 64


@dataclass(frozen=True)
class Spectrum:
    """Singular values.

    Attributes:
        values: From the largest to the smallest, thinned out to a few; empty if they were not computed.
        note: What they are the singular values of, or why there are none.
    """

    values: np.ndarray
    note: str


class NotFinite(ArithmeticError):
    """A kernel holds NaN or infinity, and such a matrix has no singular values."""


def spectrum_of(layer):
    """The `Spectrum` of a built layer."""
    try:
        return spectrum_of_finite(layer)
    except NotFinite:
        return none("its kernel has values that are not finite")


def spectrum_of_finite(layer):
    if isinstance(layer, MATRICES):
        inputs, filters = layer.kernel.shape
        if work(inputs, filters) > BUDGET:
            return none(f"the matrix of {inputs:,}×{filters:,} is too large for this report")
        return Spectrum(of_matrices(finite_kernel(layer).values), "Exact: the singular values of its matrix.")
    if not isinstance(layer, CONVOLUTIONS):
        return none("this report computes singular values of Dense layers and of convolutions")
    if max(layer.kernel_size) > 1 and max(layer.strides) > 1:
        return none("a stride above 1 mixes frequencies")
    return of_convolution(layer)


def of_convolution(layer):
    """The spectrum of a convolution of stride 1, or of one tap."""
    depthwise = isinstance(layer, CONVOLUTIONS[3:])
    *_, inputs, filters = layer.kernel.shape
    groups = inputs if depthwise else layer.groups
    each = work(1, filters) if depthwise else work(inputs, filters // groups)  # for a frequency and a group
    if max(layer.kernel_size) == 1:
        if groups * each > BUDGET:
            return none("its matrices are too large for this report")
        return Spectrum(on_ring(layer, [1] * layer.rank), "Exact: with a single tap, those of the kernel's matrix.")
    reach = [(taps - 1) * rate + 1 for taps, rate in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    for length in (*LENGTHS, 0):
        ring = [max(length, size) for size in reach]
        if 8 * np.prod(ring, dtype=float) * groups * each <= BUDGET:
            note = f"On a ring of {size_text(ring)} positions, where the edges meet: an approximation of the layer."
            return Spectrum(on_ring(layer, ring), note)
    return none("the matrices of its frequencies are too large for this report")


def on_ring(layer, ring):
    """Singular values of the kernel's convolution with a stride of 1 around a ring of so many positions along each axis."""
    kernel = finite_kernel(layer)
    inputs, filters = kernel.values.shape[-2:]
    placed = np.zeros((*ring, inputs, filters), "float32")
    rates = zip(kernel.taps, layer.dilation_rate, strict=True)
    placed[tuple(slice(None, taps * rate, rate) for taps, rate in rates)] = kernel.values
    frequencies = np.fft.fftn(placed, axes=tuple(range(len(ring)))) if np.prod(ring) > 1 else placed
    matrices = frequencies.reshape(-1, inputs, kernel.groups, filters // kernel.groups)
    return of_matrices(np.moveaxis(matrices, 2, 1))


def finite_kernel(layer):
    """The `Kernel` of a layer that has one.

    Raises:
        NotFinite: If it holds something that is no number.
    """
    (kernel,) = kernels_of(layer)
    if not np.isfinite(kernel.values).all():
        raise NotFinite
    return kernel


def of_matrices(matrices):
    """Singular values of all matrices together, thinned out evenly, the largest and the smallest among them."""
    values = np.sort(np.linalg.svd(matrices, compute_uv=False).ravel())[::-1]
    return values[np.unique(np.linspace(0, len(values) - 1, POINTS).round().astype(int))]


def work(rows, columns):
    """About how many multiplications the singular values of a matrix cost."""
    return 4.0 * rows * columns * min(rows, columns)


def none(why):
    return Spectrum(np.zeros(0), f"Not computed: {why}.")
