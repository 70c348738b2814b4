"""TensorFlow."""

from functools import cache

import tensorflow as tf
from keras import ops

from keras_adjoint.ops.backend import TF32
from keras_adjoint.ops.geometry import is_known
from keras_adjoint.ops.window import window


def _uses_onednn():
    """Whether TensorFlow computes by oneDNN, which depends on the processor and on the environment."""
    try:
        from tensorflow.python.util._pywrap_util_port import IsMklEnabled  # nothing public says it
    except ImportError:
        return True
    return IsMklEnabled()


_USES_ONEDNN = _uses_onednn()
NAME = "tensorflow" if _USES_ONEDNN else "tensorflow without oneDNN"
_OFFERED = {
    "sequence": ("native", "subpixel", "columns"),
    "image": ("native", "subpixel", "columns"),
    "dilated": ("subpixel", "shifts"),
    "dilated sequence": ("subpixel", "shifts"),
    "volume": ("native", "subpixel", "columns"),
    "grouped": ("subpixel", "shifts"),
    "depthwise": ("native", "subpixel"),
    "strided depthwise": ("native", "subpixel", "phases"),
}
# Its own strided depthwise adjoint takes from ten to some hundred times the forward in bfloat16.
CANDIDATES = {"full": _OFFERED, "half": {**_OFFERED, "strided depthwise": ("subpixel", "phases")}}
FOLDED_RANKS = ()
WRITES_COLUMNS = () if _USES_ONEDNN else ("full",)
UNFOLDS_GROUPS = False
CHANNELS_AT_ONCE = 16
NATIVE_MARGIN = 1.05
LONGEST_SUM_IN_HALF = 2**15
SHIFTS_CONV_TRANSPOSE = False
DEPTHWISE_RANKS = (1, 2)  # what `ops.depthwise_conv` knows


def coarse_epsilon():
    rounds = tf.config.experimental.tensor_float_32_execution_enabled()
    return TF32 if rounds and _gpus() else 0.0


def average_pooling_edges(before, after):
    return "inside"


def device_of(tensor):
    return "gpu" if _gpus() else "cpu"


@cache
def _gpus():
    return tf.config.list_physical_devices("GPU")


def compiled(function):
    return tf.function(function)


def wait(tensor):
    if _gpus():  # on the CPU a call returns when it is done
        tf.reshape(tensor, (-1,))[:1].numpy()


def known_size(size):
    return size


def sum_sequential(term, operand, rows):
    total = term(operand, *rows[0])
    for row in rows[1:]:
        # TensorFlow would exchange the operands of a plain sum, and then hold one tensor more.
        total = tf.add_n([total, term(_after(total, operand), *row)])
    return total


def map_sequential(term, operand, rows):
    found = [term(operand, *rows[0])]
    for row in rows[1:]:
        found.append(term(_after(found[-1], operand), *row))
    return found


def _after(done, operand):
    """`operand`, for what is to begin after `done`: a graph would begin all terms at once, and hold them to the end."""
    with tf.control_dependencies([done]):
        return tf.identity(operand)


def convolve(x, kernel, pads, strides, dilation):
    *taps, in_channels, filters = kernel.shape
    padding = "valid"
    if any(not is_known(zeros) or zeros != 0 for pair in pads for zeros in pair):
        reaches = [(size - 1) * step + 1 for size, step in zip(taps, dilation, strict=True)]
        padding = "same" if _is_same(x.shape[1:-1], reaches, strides, pads) else "valid"
        x = x if padding == "same" else window(x, *_windows(x, pads))
    channels = x.shape[-1]
    if in_channels == 1 and channels > 1 and len(taps) in DEPTHWISE_RANKS and len(set(strides)) == 1:
        # One input channel per group is a depthwise convolution, which has a much faster kernel.
        kernel = tf.reshape(kernel, (*taps, channels, filters // channels))
        dtype = x.dtype
        if _never_ends(kernel, strides, dtype):
            x, kernel = tf.cast(x, tf.float32), tf.cast(kernel, tf.float32)
        return tf.cast(ops.depthwise_conv(x, kernel, strides, padding, "channels_last", dilation), dtype)
    return ops.conv(x, kernel, strides, padding, "channels_last", dilation)


def _never_ends(kernel, strides, dtype):
    """Whether the depthwise convolution hangs, as oneDNN's does in half precision for few channels and long rows of taps."""
    *_, row, channels, multiplier = kernel.shape
    return dtype.size == 2 and row > 14 and channels <= 16 and multiplier == 1 and set(strides) == {1}


def can_transpose(convolution, kind):
    if kind == "grouped" or any(dilation > 1 for dilation in convolution.each("dilation")):
        return False  # neither has a kernel on the CPU
    strides = convolution.each("stride")
    return convolution.groups == 1 or (len(strides) in DEPTHWISE_RANKS and len(set(strides)) == 1)


def transposed_convolve(y, kernel, convolution):
    *taps, in_channels, _ = kernel.shape
    strides, rank = list(convolution.each("stride")), len(taps)
    # oneDNN has "SAME" and "VALID", and does not take explicit pads.
    padding = convolution.padding
    sizes = list(convolution.each("size"))
    same = _is_same(sizes, taps, strides, padding)
    whole = same or all(is_known(zeros) and zeros == 0 for pair in padding for zeros in pair)
    if not whole:  # zeros come out behind where nothing was read, so that there x needs cutting alone
        sizes = [size + front + behind for size, (front, behind) in zip(sizes, padding, strict=True)]
    channels = in_channels * convolution.groups
    depthwise = in_channels == 1 and convolution.groups > 1
    if depthwise:
        kernel = tf.reshape(kernel, (*taps, channels, -1))
    if rank == 1:  # an axis of one position, on which a depthwise kernel has the stride of the other
        y, kernel = tf.expand_dims(y, 1), tf.expand_dims(kernel, 0)
        sizes, strides = [1, *sizes], [strides[0] if depthwise else 1, *strides]
    operation = _TRANSPOSED["depthwise" if depthwise else rank]
    x_shape = [tf.shape(y)[0] if y.shape[0] is None else y.shape[0], *sizes, channels]
    x = operation(
        # An eager call would take as long for three operations on sizes as for a small convolution.
        input_sizes=x_shape if all(map(is_known, x_shape)) else tf.stack(x_shape),
        filter=kernel,
        out_backprop=y,
        strides=[1, *strides, 1],
        padding="SAME" if same else "VALID",
    )
    x = tf.squeeze(x, 1) if rank == 1 else x
    return x if whole else window(x, convolution.each("before"), convolution.each("size"))


_TRANSPOSED = {
    1: tf.raw_ops.Conv2DBackpropInput,
    2: tf.raw_ops.Conv2DBackpropInput,
    3: tf.raw_ops.Conv3DBackpropInputV2,
    "depthwise": tf.raw_ops.DepthwiseConv2dNativeBackpropInput,
}


def with_derivatives(form, kernel, y):
    convolution = form.convolution
    dilated = set(convolution.each("dilation")) != {1}
    has_forward = not dilated or set(convolution.each("stride")) == {1}
    if form.algorithm.is_native or not convolution.is_known or not has_forward:
        return form.x(kernel, y)  # every operation in it has its own derivatives
    kernel, y = tf.convert_to_tensor(kernel), tf.convert_to_tensor(y)
    if dilated or (convolution.groups > 1 and kernel.shape[-2] > 1):
        return _gradient_of_form("x", form, kernel=kernel, y=y)

    @tf.custom_gradient
    def carry_back(kernel, y):
        def gradients(cotangent):
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                forward = form.y(cotangent, kernel)
            return tape.gradient(forward, kernel, output_gradients=y), forward

        return form.x(kernel, y), gradients

    return carry_back(kernel, y)


def _gradient_of_form(wanted, form, **others):
    """The gradient of a form by the argument `wanted`, for given other two; its derivatives are the form's other gradients.

    TensorFlow's own gradients of grouped kernels take some hundred times the forward, those of dilated ones up to twice.
    """

    @tf.custom_gradient
    def computed(*operands):
        def gradients(cotangent):
            arguments = {wanted: cotangent, **dict(zip(others, operands, strict=True))}
            return [
                _gradient_of_form(name, form, **{other: arguments[other] for other in arguments if other != name})
                for name in others
            ]

        return getattr(form, wanted)(**dict(zip(others, operands, strict=True))), gradients

    return computed(*others.values())


def _windows(x, pads):
    sizes = ops.shape(x)[1:-1]
    return [-front for front, _ in pads], [
        front + size + behind for size, (front, behind) in zip(sizes, pads, strict=True)
    ]


def _is_same(sizes, reaches, strides, pads):
    """Whether TensorFlow's "SAME" pads like this."""
    for size, reach, stride, pair in zip(sizes, reaches, strides, pads, strict=True):
        if not all(map(is_known, (size, *pair))):
            return False
        zeros = max((-(-size // stride) - 1) * stride + reach - size, 0)
        if pair != (zeros // 2, zeros - zeros // 2):
            return False
    return True
