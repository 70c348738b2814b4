"""Small convolutions for the tests of the algorithms: every rank, padding, stride, dilation and grouping."""

import itertools
import math

import numpy as np

from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.geometry import Convolution, Window

#        size, taps, stride, dilation
ALONG = [
    (9, 3, 1, 1),
    (8, 3, 2, 1),
    (9, 4, 2, 1),
    (8, 2, 3, 1),
    (7, 5, 3, 1),
    (9, 3, 1, 2),
    (9, 3, 2, 3),
    (8, 1, 2, 1),
    (5, 5, 1, 1),
]
#           channels, filters, groups
CHANNELS = [(3, 4, 1), (4, 6, 2), (3, 3, 3), (1, 2, 1), (2, 4, 2)]
PADDINGS = {1: ("same", "valid", "causal"), 2: ("same", "valid"), 3: ("same",)}


def problems():
    """A `Problem` of one sample for combinations that a matrix is not too large for."""
    every = itertools.product((1, 2, 3), ALONG, CHANNELS)
    for number, (rank, (size, taps, stride, dilation), (channels, filters, groups)) in enumerate(every):
        if rank > 1 and number % 2:
            continue  # half of them meet every pair of properties
        for padding in PADDINGS[rank]:
            window = Window(taps, stride, dilation, padding)
            sizes = (size - 1,) * (rank - 1) + (size,) if rank < 3 else (4, 3, 5)
            axes = tuple(window.at(size) for size in sizes)
            if all(axis.outputs > 0 for axis in axes):
                yield Problem(Convolution(axes, groups), 1, channels, filters)


def label(problem):
    """A name that tells a problem from the others."""
    axes, groups = problem.convolution.axes, problem.convolution.groups
    first = axes[0]
    where = "×".join(f"{axis.size}" for axis in axes)
    return (
        f"{where} k{first.taps} s{first.stride} d{first.dilation} from{first.pad_before} to{first.outputs} "
        f"{problem.channels}→{problem.filters} g{groups}"
    )


def x_shape(problem):
    return (problem.batch, *problem.convolution.each("size"), problem.channels)


def y_shape(problem):
    return (problem.batch, *problem.convolution.each("outputs"), problem.filters)


def kernel_shape(problem):
    return (*problem.convolution.each("taps"), problem.channels // problem.convolution.groups, problem.filters)


def random(shape, seed, dtype="float64"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def joins(convolution):
    """Yield (output, tap, position) wherever the tap joins the output to a position inside of the input."""
    sizes, outputs, taps = (convolution.each(name) for name in ("size", "outputs", "taps"))
    for output, tap in itertools.product(np.ndindex(*outputs), np.ndindex(*taps)):
        position = tuple(
            j * axis.stride + t * axis.dilation - axis.pad_before
            for j, t, axis in zip(output, tap, convolution.axes, strict=True)
        )
        if all(0 <= place < size for place, size in zip(position, sizes, strict=True)):
            yield output, tap, position


def forward_matrix(problem, kernel):
    """The matrix of A, written down entry by entry from the definition of a convolution."""
    convolution = problem.convolution
    sizes, outputs = convolution.each("size"), convolution.each("outputs")
    channels, filters = problem.group
    entries = np.zeros((*outputs, problem.filters, *sizes, problem.channels))
    for output, tap, position in joins(convolution):
        for group in range(convolution.groups):
            inside = slice(group * channels, (group + 1) * channels)
            made = slice(group * filters, (group + 1) * filters)
            entries[(*output, made, *position, inside)] += kernel[(*tap, slice(None), made)].T
    return entries.reshape(math.prod(outputs) * problem.filters, -1)
