"""The gradient of a convolution's kernel, tap by tap.

Output j reads position j·s + t·d − before with the weight K[t]. So ⟨A x, y⟩ has the gradient Σ_j x[j·s + t·d − before] ⊗ y[j]
by K[t]: a product of matrices that sums over all outputs of all samples, or one for each group.
"""

import itertools

from keras import ops

from keras_adjoint.ops.algorithms.accumulate import HALF
from keras_adjoint.ops.algorithms.groups import by_group
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.window import window


def kernel_gradient(x, y, convolution):
    """The gradient of ⟨A x, y⟩ by the kernel of A, summed in float32 or better.

    Args:
        x: Tensor of shape `(batch, *sizes, channels)`.
        y: Tensor of shape `(batch, *outputs, filters)`.
        convolution: The geometry of A.

    Returns:
        A tensor of shape `(*taps, channels / groups, filters)`.
    """
    dtype, groups = ops.dtype(x), convolution.groups
    if dtype in HALF:
        x, y = ops.cast(x, "float32"), ops.cast(y, "float32")
    rows = by_group(y, groups)

    def of_tap(blocks, *cuts):
        read = by_group(blocks[(slice(None), *cuts)], groups)
        return ops.swapaxes(read, 1, 2) @ rows  # `ops.matmul` would compute float64 in float32 on PyTorch

    matrices = current().map_sequential(of_tap, in_blocks(x, convolution), reads(convolution))
    gradient = ops.transpose(ops.stack(matrices), (0, 2, 1, 3))
    shape = (*convolution.each("taps"), gradient.shape[1], y.shape[-1])
    return ops.cast(ops.reshape(gradient, shape), dtype)


def in_blocks(x, convolution):
    """`x` from where the first tap begins to read, every axis split into blocks of s positions."""
    axes = convolution.axes
    counts = [axis.outputs + (axis.taps - 1) * axis.dilation // axis.stride for axis in axes]
    lengths = [count * axis.stride for count, axis in zip(counts, axes, strict=True)]
    batch, *_, channels = ops.shape(x)
    split = itertools.chain.from_iterable((count, axis.stride) for count, axis in zip(counts, axes, strict=True))
    return ops.reshape(window(x, [-axis.before for axis in axes], lengths), (batch, *split, channels))


def reads(convolution):
    """For every tap of the kernel, what all outputs read of the blocks: the tap at t·d = q·s + r reads position r from q on."""
    found = []
    for tap in itertools.product(*(range(axis.taps) for axis in convolution.axes)):
        cuts = []
        for number, axis in zip(tap, convolution.axes, strict=True):
            block, position = divmod(number * axis.dilation, axis.stride)
            cuts += [slice(block, block + axis.outputs), position]
        found.append(cuts)
    return found
