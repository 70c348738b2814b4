"""The adjoint as a stride-1 convolution over y with s − 1 zeros behind each of its elements: it fits every geometry.

x[i] = Σ_t K[t] ȳ[i + before − t·dilation], where ȳ[j·s] = y[j] and ȳ is zero elsewhere. It multiplies s times more
often than it must along each axis, so that it serves only where no other lowering fits: strides with dilation.
"""

from itertools import chain

from keras import ops

from keras_adjoint.lowerings.correlate import correlate
from keras_adjoint.lowerings.window import window


def fits(convolution):
    """Every convolution."""
    return True


def apply(y, kernel, convolution):
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels / groups, filters)`."""
    axes = convolution.axes
    stuffed = stuff(y, [axis.stride for axis in axes])
    starts = [axis.before - axis.reach + 1 for axis in axes]
    lengths = [axis.size + axis.reach - 1 for axis in axes]
    dilation = tuple(axis.dilation for axis in axes)
    return correlate(window(stuffed, starts, lengths), flipped_kernel(kernel, convolution.groups), dilation)


def stuff(y, strides):
    """`(batch, *outputs, filters)` to `(batch, *outputs·s, filters)`, with zeros behind every element."""
    rank = len(strides)
    shape = ops.shape(y)
    sizes, filters = shape[1:-1], shape[-1]
    y = ops.reshape(y, (-1, *chain(*((size, 1) for size in sizes)), filters))
    y = ops.pad(y, [(0, 0), *chain(*(((0, 0), (0, stride - 1)) for stride in strides)), (0, 0)])
    return ops.reshape(y, (-1, *(size * strides[i] for i, size in enumerate(sizes[:rank])), filters))


def flipped_kernel(kernel, groups):
    """Taps in reverse order and channels exchanged within each group: `(*taps, filters / groups, channels)`."""
    *taps, channels, filters = map(int, kernel.shape)
    rank = len(taps)
    kernel = ops.flip(ops.reshape(kernel, (*taps, channels, groups, filters // groups)), axis=tuple(range(rank)))
    kernel = ops.transpose(kernel, (*range(rank), rank + 2, rank + 1, rank))
    return ops.reshape(kernel, (*taps, filters // groups, groups * channels))
