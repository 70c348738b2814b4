"""The stride-1 convolution that the lowerings are made of."""

from keras import ops

DEPTHWISE_RANKS = (1, 2)  # what `ops.depthwise_conv` knows


def correlate(x, kernel, dilation):
    """A stride-1 "valid" convolution, grouped where the kernel has fewer input channels than `x`.

    Args:
        x: Tensor of shape `(batch, *sizes, channels)`.
        kernel: Tensor of shape `(*taps, channels / groups, filters)`.
        dilation: One distance between taps per axis.

    Returns:
        A tensor of shape `(batch, *(sizes − reach + 1), filters)`.
    """
    *taps, in_channels, filters = map(int, kernel.shape)
    channels = int(x.shape[-1])
    if in_channels == 1 and channels > 1 and len(taps) in DEPTHWISE_RANKS:
        # One input channel per group is a depthwise convolution, which has a much faster kernel on TensorFlow.
        kernel = ops.reshape(kernel, (*taps, channels, filters // channels))
        return ops.depthwise_conv(x, kernel, 1, "valid", "channels_last", dilation)
    return ops.conv(x, kernel, 1, "valid", "channels_last", dilation)
