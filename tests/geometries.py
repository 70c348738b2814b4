"""Small convolutions for the tests of the algorithms, in which every two of their properties meet."""

import functools
import itertools
import math

import numpy as np
import pytest
from covering import covering, product
from extent import EXHAUSTIVE

from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.geometry import Convolution, Window

PROPERTIES = {
    "rank": (1, 2, 3),
    "size": (5, 7, 8, 9),
    "taps": (1, 2, 3, 4, 5),
    "stride": (1, 2, 3),
    "dilation": (1, 2, 3),
    "padding": ("same", "valid", "causal"),
    #           channels, filters, groups
    "channels": ((3, 4, 1), (4, 6, 2), (3, 3, 3), (1, 2, 1), (2, 4, 2)),
    "axes": ("alike", "unlike"),
}
LARGEST = 40_000  # numbers in a matrix


def problem_of(rank, size, taps, stride, dilation, padding, channels, axes):
    """A `Problem` of one sample; `None` where there is none, or where its matrix is too large for a test."""
    if padding == "causal" and rank > 1:
        return None
    window = Window(taps, stride, dilation, padding)
    other = window if axes == "alike" else Window(taps % 3 + 1, stride % 3 + 1, 1, padding)
    last = size if rank < 3 else size // 2
    ends = [other.at(last - 1 - axis) for axis in range(rank - 1)] + [window.at(last)]
    if min(min(axis.size, axis.outputs) for axis in ends) < 1:
        return None
    inputs, filters, groups = channels
    problem = Problem(Convolution(tuple(ends), groups), 1, inputs, filters)
    return problem if problem.inputs * problem.outputs <= LARGEST else None


@functools.cache
def every_problem():
    """(properties, problem) of convolutions of all kinds, drawn by a seed."""
    drawn = ((case, problem_of(**case)) for case in product(PROPERTIES, most=2500))
    return [(tuple(case.items()), problem) for case, problem in drawn if problem is not None]


@functools.cache
def properties_of(problem):
    """The properties that an `every_problem` was made of."""
    return next(properties for properties, other in every_problem() if other == problem)


def problems(fits=lambda problem: True, strength=2):
    """Those among them that fit, so few that every two of the properties meet that can."""
    fitting = [pair for pair in every_problem() if fits(pair[1])]
    return [problem for _, problem in covering(fitting, lambda pair: pair[0], strength)]


def problem_cases(*arguments, fits=lambda problem: True, strength=2):
    """Parameters of a test, behind `arguments`: for `make test`, and of a strength more for `make test-exhaustive`."""
    quick = problems(fits, strength)
    others = [problem for problem in problems(fits, strength + 1) if problem not in quick] if EXHAUSTIVE else []
    for problem in [*quick, *others]:
        yield pytest.param(*arguments, problem, id=" ".join([*map(str, arguments), label(problem)]))


def label(problem):
    """A name that tells a problem from the others."""
    axes = " x ".join(
        f"{axis.size}k{axis.taps}s{axis.stride}d{axis.dilation}p{axis.pad_before}" for axis in problem.convolution.axes
    )
    return f"{axes} {problem.channels} to {problem.filters} g{problem.convolution.groups}"


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
