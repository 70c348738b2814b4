"""The pieces that conversions are made of: arrays of weights, and short chains of stock layers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.layers.kernel import read_kernel
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Tensor
from keras_adjoint.stock.steps import Step, step, weighted

L = keras.layers
CONV = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}
CROPPING = {1: L.Cropping1D, 2: L.Cropping2D, 3: L.Cropping3D}
ZERO_PADDING = {1: L.ZeroPadding1D, 2: L.ZeroPadding2D, 3: L.ZeroPadding3D}

# --- numbers


def array(value: Tensor) -> np.ndarray:
    """A variable or tensor as a NumPy array in single or double precision."""
    value = ops.convert_to_numpy(value)
    return value if value.dtype == "float64" else value.astype("float32")


def kernel_of(tied: Tied, name: str | None = None) -> np.ndarray:
    """A kernel of the source as it is stored, not rounded to the compute dtype."""
    return array(read_kernel(tied.source, name or tied.kernel_name))


def constant(value: Tensor) -> np.ndarray:
    """Numbers that a layer keeps in its config: an array, since TensorFlow reads a Python number as single precision."""
    return np.asarray(array(value), "float64")


# --- pieces


def scaled(factor: Tensor) -> Step:
    """A product with a number or with an array that broadcasts."""
    return step(L.Rescaling, scale=constant(factor))


def subtracted(tied: Tied, bias: Tensor | None) -> list[Step]:
    """What `bias="subtract"` puts before the adjoint."""
    if tied.bias_mode != "subtract" or bias is None:
        return []
    return [step(L.Rescaling, scale=1.0, offset=-constant(bias))]


def windowed(pads: Sequence[tuple[int, int]]) -> list[Step]:
    """Zeros added (positive) or positions cut (negative) before and after every spatial axis."""
    rank = len(pads)
    cuts = tuple(tuple(max(-pad, 0) for pad in pair) for pair in pads)
    zeros = tuple(tuple(max(pad, 0) for pad in pair) for pair in pads)
    crop = step(CROPPING[rank], cropping=cuts if rank > 1 else cuts[0])
    pad = step(ZERO_PADDING[rank], padding=zeros if rank > 1 else zeros[0])
    return [step for step, amounts in ((crop, cuts), (pad, zeros)) if any(chain(*amounts))]


def convolved(kernel: np.ndarray, bias: np.ndarray | None = None, **options: Any) -> Step:
    """A "valid" convolution with a kernel of shape `(*taps, channels / groups, filters)`."""
    *taps, _, filters = kernel.shape
    return weighted(CONV[len(taps)], kernel, bias, filters=filters, kernel_size=tuple(taps), **options)


def multiplied(matrix: np.ndarray, rank: int = 0, bias: np.ndarray | None = None) -> Step:
    """A product of the channels with a matrix, at each position of `rank` spatial axes."""
    if rank == 0:
        return weighted(L.Dense, matrix, bias, units=matrix.shape[1])
    return convolved(matrix.reshape((1,) * rank + matrix.shape), bias)


def with_options(tied: Tied, rank: int, convert: Callable[[np.ndarray | None], list[Step]]) -> list[Step]:
    """The steps that the options of an adjoint add around those that `convert(bias)` gives."""
    before = subtracted(tied, tied.source.bias)
    bias, matrix = tied.bias_added(), tied.channel_matrix()
    bias = None if bias is None else array(bias)
    if matrix is None:
        return [*before, *convert(bias)]
    return [*before, *convert(None), replace(multiplied(array(matrix), rank, bias), reads="channel_map")]


def among_channels_last(tied: Tied, rank: int, steps: list[Step]) -> list[Step]:
    """The same steps for a layer of the source's data format."""
    if tied.data_format == "channels_last":
        return steps
    return [channels_to_last(rank), *steps, channels_to_first(rank)]


def channels_to_last(rank: int) -> Step:
    return step(L.Permute, dims=(*range(2, rank + 2), 1))


def channels_to_first(rank: int) -> Step:
    return step(L.Permute, dims=(rank + 1, *range(1, rank + 1)))
