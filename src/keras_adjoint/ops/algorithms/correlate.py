"""The convolutions that the algorithms are made of, and the forward itself."""

from keras import ops

from keras_adjoint.ops.backend import current


def correlate(x, kernel, starts, lengths, dilation):
    """A stride-1 convolution over a window of `x`, grouped where the kernel has fewer input channels than `x`.

    Args:
        x: Tensor of shape `(batch, *sizes, channels)`, thought to go on with zeros in both directions.
        kernel: Tensor of shape `(*taps, channels / groups, filters)`.
        starts: The first position to read, one per axis.
        lengths: The number of positions to read, one per axis.
        dilation: One distance between taps per axis.

    Returns:
        A tensor of shape `(batch, *(lengths − reach + 1), filters)`.
    """
    pads = [
        (-start, start + length - size) for start, length, size in zip(starts, lengths, ops.shape(x)[1:-1], strict=True)
    ]
    return current().convolve(x, kernel, pads, (1,) * len(pads), dilation)


def forward(x, kernel, convolution):
    """A x for `x` of shape `(batch, *sizes, channels)` and `kernel` of shape `(*taps, channels / groups, filters)`."""
    strides, dilation = convolution.each("stride"), convolution.each("dilation")
    return current().convolve(x, kernel, convolution.padding, strides, dilation)
