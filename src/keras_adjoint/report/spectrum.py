"""The singular values of a layer, where they are cheap: of a matrix, and of a circular convolution.

The Fourier transform takes a circular convolution of stride 1 apart into one small matrix for each frequency, whose singular
values are together those of the convolution (Sedghi, Gupta and Long 2019, "The Singular Values of Convolutional Layers").
They approximate those of the layer itself, which is not circular.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from keras_adjoint.models.text import size_text
from keras_adjoint.plots.kernel_arrays import KernelArray, kernels_of

L = keras.layers
MATRICES = (L.Dense,)
CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D)
BUDGET = 1.5e9  # about how many multiplications a spectrum may cost
LENGTHS = (32, 16, 8, 4)  # candidates for the size along each axis; the last is the dilated kernel size
POINTS = 64


@dataclass(frozen=True)
class Spectrum:
    """Singular values.

    Attributes:
        values: A selection of at most `POINTS`, from the largest to the smallest; empty if they were not computed.
        note: What they are the singular values of, or why there are none.
        size: The size of the inputs that they are for; "" if they are those of a matrix.
    """

    values: np.ndarray
    note: str
    size: str = ""


class NotFinite(ArithmeticError):
    """A kernel holds NaN or infinity, so that it has no singular values."""


def spectrum_of(layer: keras.layers.Layer) -> Spectrum:
    """The `Spectrum` of a built layer."""
    try:
        return spectrum_of_finite(layer)
    except NotFinite:
        return not_computed("its kernel has values that are not finite")


def spectrum_of_finite(layer: keras.layers.Layer) -> Spectrum:
    if isinstance(layer, MATRICES):
        inputs, filters = layer.kernel.shape
        if work(inputs, filters) > BUDGET:
            return not_computed(f"the matrix of {size_text((inputs, filters))} is too large for this report")
        return Spectrum(of_matrices(finite_kernel(layer).values), "Exact: the singular values of its matrix.")
    if not isinstance(layer, CONVOLUTIONS):
        return not_computed("this report computes singular values of Dense layers and of convolutions")
    if max(layer.kernel_size) > 1 and max(layer.strides) > 1:
        return not_computed(
            "the Fourier transform, by which this report computes them, takes a convolution of stride 1 apart into one "
            "small matrix for each frequency, and a stride above 1 mixes frequencies. keras-adjoint spectrum computes the "
            "norm, which is the largest of them"
        )
    return of_convolution(layer)


def of_convolution(layer: keras.layers.Layer) -> Spectrum:
    """The spectrum of a convolution of stride 1, or of one tap."""
    depthwise = isinstance(layer, CONVOLUTIONS[3:])
    *_, inputs, filters = layer.kernel.shape
    groups = inputs if depthwise else layer.groups
    each = work(1, filters) if depthwise else work(inputs, filters // groups)  # for a frequency and a group
    if max(layer.kernel_size) == 1:
        if groups * each > BUDGET:
            return not_computed("its matrices are too large for this report")
        return Spectrum(circular(layer, [1] * layer.rank), "Exact: with a single tap, those of the kernel's matrix.")
    dilated = [(taps - 1) * rate + 1 for taps, rate in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    for length in (*LENGTHS, 0):
        sizes = [max(length, size) for size in dilated]
        if 8 * np.prod(sizes, dtype=float) * groups * each <= BUDGET:
            note = (
                f"Approximate: those of the circular convolution of size {size_text(sizes)}, whatever the size of the "
                "layer's inputs. The norm and the bound above are those of the layer itself."
            )
            return Spectrum(circular(layer, sizes), note, size_text(sizes))
    return not_computed("the matrices of its frequencies are too large for this report")


def circular(layer: keras.layers.Layer, sizes: Sequence[int]) -> np.ndarray:
    """Singular values of the circular convolution with the kernel, of stride 1, for inputs of these sizes."""
    kernel = finite_kernel(layer)
    inputs, filters = kernel.values.shape[-2:]
    placed = np.zeros((*sizes, inputs, filters), "float32")
    rates = zip(kernel.taps, layer.dilation_rate, strict=True)
    placed[tuple(slice(None, taps * rate, rate) for taps, rate in rates)] = kernel.values
    frequencies = np.fft.fftn(placed, axes=tuple(range(len(sizes)))) if np.prod(sizes) > 1 else placed
    matrices = frequencies.reshape(-1, inputs, kernel.groups, filters // kernel.groups)
    return of_matrices(np.moveaxis(matrices, 2, 1))


def finite_kernel(layer: keras.layers.Layer) -> KernelArray:
    """The kernel of a layer that has one.

    Raises:
        NotFinite: If it holds NaN or infinity.
    """
    (kernel,) = kernels_of(layer)
    if not np.isfinite(kernel.values).all():
        raise NotFinite
    return kernel


def of_matrices(matrices: np.ndarray) -> np.ndarray:
    """An even selection of the singular values of all matrices, the largest and the smallest among them."""
    values = np.sort(np.linalg.svd(matrices, compute_uv=False).ravel())[::-1]
    return np.asarray(values[np.unique(np.linspace(0, len(values) - 1, POINTS).round().astype(int))])


def work(rows: int, columns: int) -> float:
    """About how many multiplications the singular values of a matrix cost."""
    return 4.0 * rows * columns * min(rows, columns)


def not_computed(why: str) -> Spectrum:
    return Spectrum(np.zeros(0), f"Not computed: {why}.")
