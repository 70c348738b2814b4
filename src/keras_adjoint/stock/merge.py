"""The adjoints of merging layers in stock layers: one chain of steps for each tensor that they return."""

import math

from keras_adjoint.layers.merge import weights_of
from keras_adjoint.stock.steps import Branches, L, scaled, step


def weighted_sum(call):
    """y for everyone, times the weight."""
    shapes = [shape[1:] for shape in call.output_shape]
    if any(shape != tuple(call.input_shape[1:]) for shape in shapes):
        call.refuse("it adds up what was broadcast, for which there is no stock layer")
    return Branches([[] if weight == 1 else [scaled(weight)] for weight in weights_of(call.tied.source, len(shapes))])


def concatenation(call):
    """Each part cut out along the first axis of a matrix, which is where `Cropping1D` cuts."""
    axis = call.tied.source.axis % len(call.input_shape)
    shape = call.known(call.input_shape[1:])
    to_front = (axis, *(a for a in range(1, len(shape) + 1) if a != axis))
    back = tuple(to_front.index(a) + 1 for a in range(1, len(shape) + 1))
    rest = [shape[a - 1] for a in to_front[1:]]
    branches, start = [], 0
    for part in (output_shape[axis] for output_shape in call.output_shape):
        branches.append(
            [
                step(L.Permute, dims=to_front),
                step(L.Reshape, target_shape=(shape[axis - 1], math.prod(rest))),
                step(L.Cropping1D, cropping=(start, shape[axis - 1] - start - part)),
                step(L.Reshape, target_shape=(part, *rest)),
                step(L.Permute, dims=back),
            ]
        )
        start += part
    return Branches(branches)
