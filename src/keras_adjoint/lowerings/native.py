"""The adjoint as the backend's own transposed convolution, which reads the kernel as it is.

It is what other formats have an operator for. ONNX and OpenVINO lay out the kernel of a transposed convolution like that
of the convolution, so that one copy in the file serves both.
"""

from keras import ops

from keras_adjoint.lowerings.window import window


def fits(convolution):
    """Not groups, for which Keras has no transposed convolution; nor dilation, which TensorFlow has not on CPUs."""
    return convolution.groups == 1 and all(axis.dilation == 1 for axis in convolution.axes)


def apply(y, kernel, convolution):
    """Aᵀ y for `y` of shape `(batch, *outputs, filters)` and `kernel` of shape `(*taps, channels, filters)`."""
    axes = convolution.axes
    strides = tuple(axis.stride for axis in axes)
    padded = ops.conv_transpose(y, kernel, strides, "valid", data_format="channels_last")
    return window(padded, [axis.before for axis in axes], [axis.size for axis in axes])
