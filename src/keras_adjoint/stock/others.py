"""The adjoints of all other layers in stock layers: matrix products, scales, shapes, pools and merges."""

import math
from collections.abc import Sequence

import numpy as np

from keras_adjoint.layers.adjoint_of_adjoint import first_source
from keras_adjoint.layers.automatic import AutomaticAdjoint, flat_shapes
from keras_adjoint.layers.call_pattern import flat, one_or_list
from keras_adjoint.layers.dense import AdjointEmbedding
from keras_adjoint.layers.global_pooling import AdjointGlobalAveragePooling, BroadcastGlobalPooling
from keras_adjoint.layers.kernel import read_kernel
from keras_adjoint.layers.linear_source import foreign_variables
from keras_adjoint.layers.merge import weights_of
from keras_adjoint.layers.norm import AdjointScaling
from keras_adjoint.layers.own_copy import own_copy
from keras_adjoint.layers.pooling import PoolingAlongAxes
from keras_adjoint.layers.sizes import spatial
from keras_adjoint.layers.tied import Tied
from keras_adjoint.stock.pieces import (
    L,
    among_channels_last,
    array,
    channels_to_first,
    constant,
    kernel_of,
    multiplied,
    scaled,
    subtracted,
    windowed,
    with_options,
)
from keras_adjoint.stock.steps import UNKNOWN, AdjointCall, Branches, Step, step

AVERAGE_POOLING = {1: L.AveragePooling1D, 2: L.AveragePooling2D, 3: L.AveragePooling3D}
GLOBAL_AVERAGE = {1: L.GlobalAveragePooling1D, 2: L.GlobalAveragePooling2D, 3: L.GlobalAveragePooling3D}
LARGEST_MATRIX = 2**20  # numbers
UP_SAMPLING = {1: L.UpSampling1D, 2: L.UpSampling2D, 3: L.UpSampling3D}


# --- matrix products


def dense(call: AdjointCall) -> list[Step]:
    kernel = kernel_of(call.tied)
    return with_options(call.tied, 0, lambda bias: [multiplied(kernel.T, bias=bias)])


def embedding(call: AdjointCall) -> list[Step]:
    return [multiplied(kernel_of(call.tied).T)]


def einsum_dense(call: AdjointCall) -> list[Step]:
    """The same equation backwards, with the same kernel."""
    tied = call.tied
    sizes = call.output_shape
    front, dots, rest = tied.equation.split("->")[1].partition("...")
    if dots:  # the axes that the dots stand for are left out, and so is the batch axis
        sizes = sizes[: len(front)] + sizes[len(sizes) - len(rest) :]
    named = sizes[1:] if front else sizes
    product = step(L.EinsumDense, kernel_of(tied), equation=tied.equation, output_shape=named)
    return [*subtracted(tied, tied.source.bias), product]


def along_each_axis(call: AdjointCall) -> list[Step]:
    """A layer that multiplies each spatial axis with a matrix of its own, which is not trained."""
    return multiplied_along(call, call.tied.matrices_along(call.known(call.output_sizes)), call.tied.first_axis)


def multiplied_along(call: AdjointCall, matrices: Sequence[np.ndarray], first_axis: int) -> list[Step]:
    """Products with one matrix along each of the axes from `first_axis` on."""
    shape = list(call.input_shape)
    letters = "abcdefg"[: len(shape)]
    steps = []
    for axis, matrix in enumerate(matrices, first_axis):
        shape[axis] = matrix.shape[1]
        equation = f"{letters},{letters[axis]}z->{letters.replace(letters[axis], 'z')}"
        options = {"equation": equation, "output_shape": tuple(shape[1:]), "trainable": False}
        steps.append(step(L.EinsumDense, array(matrix), **options))
    return steps


# --- scales


def scaling(call: AdjointCall) -> list[Step]:
    """The scale and the shift as they are now: a `Rescaling` keeps them in its config and does not train them."""
    rank = len(call.input_shape)
    if call.tied.inverse:
        before, factor, after = call.tied.inverse_map(rank)
        shifted = [] if before is None else [step(L.Rescaling, scale=1.0, offset=-constant(before))]
        return [
            *shifted,
            scaled(factor) if after is None else step(L.Rescaling, scale=constant(factor), offset=constant(after)),
        ]
    scale, shift = call.tied.scale_and_shift(rank)
    return [*subtracted(call.tied, shift), scaled(scale)]


# --- shapes


def reshape(call: AdjointCall) -> list[Step]:
    """One size may be unknown."""
    tied = call.tied
    sizes = [-1 if size is None else size for size in call.output_shape[1:]]
    if isinstance(tied.source, L.Flatten) and tied.data_format == "channels_first" and len(sizes) > 1:
        channels, *sizes = sizes
        return [step(L.Reshape, target_shape=(*sizes, channels)), channels_to_first(len(sizes))]
    return [step(L.Reshape, target_shape=tuple(sizes))]


def repeat_vector(call: AdjointCall) -> list[Step]:
    """The sum of the copies, as n times their mean."""
    copies = call.tied.source.n
    return [step(L.AveragePooling1D, pool_size=copies), step(L.Flatten), scaled(copies)]


def zero_padding_1d(call: AdjointCall) -> list[Step]:
    """A channels-first cropping, which Keras lacks."""
    cropping = tuple(call.tied.source.padding)
    return among_channels_last(call.tied, 1, [step(L.Cropping1D, cropping=cropping)])


# --- pools


def average_pooling(call: AdjointCall) -> list[Step]:
    """Every average at all positions that it was taken over, divided by their number."""
    tied = call.tied
    pool = tuple(tied.source.pool_size)
    if tied.source.padding != "valid" or pool != tuple(tied.source.strides):
        return along_each_axis(call)
    sizes = zip(call.known(call.output_sizes), call.known(call.input_sizes), pool, strict=True)
    unread = [(0, size - outputs * taps) for size, outputs, taps in sizes]
    steps = [repeated(pool), scaled(1 / math.prod(pool)), *windowed(unread)]
    return among_channels_last(tied, len(pool), steps)


def spread_pooling(call: AdjointCall) -> list[Step]:
    """Every value over its stride, cut to size; where the last one is repeated further, by matrices."""
    tied = call.tied
    sizes, outputs = call.known(call.output_sizes), call.known(call.input_sizes)
    axes = [window.at(size) for window, size in zip(tied.windows, sizes, strict=True)]
    surplus = [(-a.pad_before, a.size + a.pad_before - n * a.stride) for a, n in zip(axes, outputs, strict=True)]
    if any(missing > 0 for _, missing in surplus):
        return along_each_axis(call)
    steps = [repeated(tuple(along.stride for along in axes)), *windowed(surplus)]
    return among_channels_last(tied, len(axes), steps)


def broadcast_global_pooling(call: AdjointCall) -> list[Step]:
    """The number at every position."""
    sizes = call.known(call.output_sizes)
    channels = math.prod(call.input_shape[1:])
    steps = [step(L.Reshape, target_shape=(*(1 for _ in sizes), channels)), repeated(sizes)]
    return steps if call.tied.data_format == "channels_last" else [*steps, channels_to_first(len(sizes))]


def global_average_pooling(call: AdjointCall) -> list[Step]:
    """The average at every position, divided by their number."""
    return [scaled(1 / math.prod(call.known(call.output_sizes))), *broadcast_global_pooling(call)]


def up_sampling(call: AdjointCall) -> list[Step]:
    """The sum of what an element was spread to: for "nearest", its number times their mean."""
    tied, factors = call.tied, call.tied.factors
    if tied.interpolation != "nearest":
        return along_each_axis(call)
    pool = step(AVERAGE_POOLING[len(factors)], pool_size=factors)
    return among_channels_last(tied, len(factors), [pool, scaled(math.prod(factors))])


def repeated(sizes: tuple[int, ...]) -> Step:
    """Every element at as many positions along every spatial axis."""
    return step(UP_SAMPLING[len(sizes)], size=sizes if len(sizes) > 1 else sizes[0])


# --- the adjoints of adjoints, and of what policies put in place of layers without one


def forward(call: AdjointCall) -> list[Step] | Branches:
    """The layer behind an adjoint, without its bias and its activation."""
    adjoint, source = call.tied.source, first_source(call.tied)
    if isinstance(adjoint, AdjointScaling):
        return [scaled(adjoint.scale_and_shift(len(call.input_shape))[0])]
    if isinstance(adjoint, AdjointEmbedding):
        return [multiplied(kernel_of(adjoint), len(call.input_shape) - 2)]
    if isinstance(adjoint, AutomaticAdjoint):
        return whole_matrix(call)
    if not type(source).__module__.startswith("keras."):
        call.refuse(UNKNOWN)
    bare = own_copy(source, keep_bias=False)
    own = ("name", "dtype", "trainable", "activation")
    options = {option: value for option, value in bare.get_config().items() if option not in own}
    kernels = [array(read_kernel(source, variable.name)) for variable in bare.weights]
    return [Step(type(bare), options, tuple(kernels))]


def automatic(call: AdjointCall) -> list[Step] | Branches:
    """The transposes of what policies put in place: sums where they repeat, the same scale where they divide.

    Of layers that are not of this package, a product with the whole matrix.
    """
    layer = call.tied.source
    if isinstance(layer, AdjointScaling):
        return [scaled(layer.factor(len(call.input_shape)))]
    if isinstance(layer, PoolingAlongAxes):
        sizes = call.known(spatial(call.input_shape, layer.data_format))
        return multiplied_along(call, [matrix.T for matrix in layer.matrices_along(sizes)], layer.first_axis)
    if isinstance(layer, BroadcastGlobalPooling):
        sizes = call.known(spatial(call.input_shape, layer.data_format))
        keepdims = layer.source.keepdims
        pool = Step(GLOBAL_AVERAGE[len(sizes)], {"keepdims": keepdims, "data_format": layer.data_format}, ())
        share = 1.0 if isinstance(layer, AdjointGlobalAveragePooling) else float(math.prod(sizes))
        return [pool, scaled(share)] if share != 1.0 else [pool]
    return whole_matrix(call)


def whole_matrix(call: AdjointCall) -> list[Step] | Branches:
    """A product with the matrix between all numbers of a sample, of what computes without weights and is not too large."""
    tied = call.tied
    source = first_source(tied.source) if isinstance(tied.source, Tied) else tied.source
    if source.weights:
        call.refuse(
            f"it is derived from the call of `{source.name}`, whose weights would be one constant matrix with it. Teach the "
            f"adjoint of that layer with `@keras_adjoint.register_rule`, as stock layers"
        )
    foreign = foreign_variables(source, tied.calls()) if isinstance(tied, AutomaticAdjoint) else []
    if foreign:
        call.refuse(
            f"it is derived from the call of `{source.name}`, which computes with variables that it does not hold, "
            f"{', '.join(foreign)}, and these would be one constant matrix with it. Write a layer that has their owners as "
            f"attributes, and teach its adjoint with `@keras_adjoint.register_rule`, as stock layers"
        )
    shapes, wanted = (
        [call.known(shape[1:]) for shape in flat_shapes(found)] for found in (call.input_shape, call.output_shape)
    )
    batch = flat_shapes(call.input_shape)[0][0]
    if isinstance(batch, int):
        call.refuse(f"it was recorded for batches of {batch}, and may compute something else of each sample")
    sizes, results = ([math.prod(shape) for shape in each] for each in (shapes, wanted))
    rows, columns = sum(sizes), sum(results)
    if rows * columns > LARGEST_MATRIX:
        call.refuse(
            f"it would be a product with a matrix of {rows:,} × {columns:,} numbers, and at most {LARGEST_MATRIX:,} are written"
        )
    parts = np.split(np.eye(rows, dtype="float32"), np.cumsum(sizes)[:-1], axis=1)
    given = [part.reshape(rows, *shape) for part, shape in zip(parts, shapes, strict=True)]
    size = {"output_size": one_or_list(wanted)} if isinstance(tied, AutomaticAdjoint) else {}
    matrices = [array(each).reshape(rows, -1) for each in flat(tied(one_or_list(given), **size))]
    chains = [
        [step(L.Reshape, target_shape=(rows,)), multiplied(matrix), step(L.Reshape, target_shape=shape)]
        for matrix, shape in zip(matrices, wanted, strict=True)
    ]
    return chains[0] if len(chains) == 1 else Branches(chains)


# --- merging layers: one chain of steps for each tensor that their adjoints return


def weighted_sum(call: AdjointCall) -> Branches:
    """y for each input, times its weight."""
    shapes = [shape[1:] for shape in call.output_shape]
    if any(shape != tuple(call.input_shape[1:]) for shape in shapes):
        call.refuse("it adds up what was broadcast, which no stock layer does")
    return Branches([[] if weight == 1 else [scaled(weight)] for weight in weights_of(call.tied.source, len(shapes))])


def concatenation(call: AdjointCall) -> Branches:
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
