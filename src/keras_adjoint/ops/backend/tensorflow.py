"""TensorFlow."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache, lru_cache, partial
from typing import Any, Literal

import tensorflow as tf
from keras import ops

from keras_adjoint.keras_internals import in_stateless_scope
from keras_adjoint.ops import Size, Tensor
from keras_adjoint.ops.backend import TF32, fold_missing
from keras_adjoint.ops.backend.protocol import Adjoint, Form, HostProduct, Pads
from keras_adjoint.ops.backend.tensorflow_derivatives import register_gradients, twice_differentiable
from keras_adjoint.ops.geometry import CACHE_SIZE, Convolution, is_known
from keras_adjoint.ops.window import window


def _uses_onednn() -> bool:
    """Whether TensorFlow computes by oneDNN, which depends on the processor and on the environment."""
    try:
        from tensorflow.python.util._pywrap_util_port import IsMklEnabled  # nothing public says it
    except ImportError:
        return True
    return bool(IsMklEnabled())


_USES_ONEDNN = _uses_onednn()
NAME = "tensorflow" if _USES_ONEDNN else "tensorflow without oneDNN"
_CANDIDATES = {
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
CANDIDATES = {"full": _CANDIDATES, "half": {**_CANDIDATES, "strided depthwise": ("subpixel", "phases")}}
FOLDED_RANKS: tuple[int, ...] = ()
WRITES_COLUMNS: tuple[str, ...] = () if _USES_ONEDNN else ("full",)
UNFOLDS_GROUPS = False
CHANNELS_AT_ONCE = 16
NATIVE_MARGIN = 1.05
LONGEST_SUM_IN_HALF = 2**15
SHIFTS_CONV_TRANSPOSE = False
JIT_CALLS_HOST = False  # XLA has no `tf.numpy_function`
DIVIDES_VARIABLES = False
RECORDS_LOOPS = True
PROCESS_GROUPS: Mapping[Any, Any] = {}
DEPTHWISE_RANKS = (1, 2)  # what `ops.depthwise_conv` knows
fold = fold_missing

register_gradients()


def coarse_epsilon() -> float:
    rounds = tf.config.experimental.tensor_float_32_execution_enabled()
    return TF32 if rounds and _gpus() else 0.0


def average_pooling_edges(pad_before: Sequence[Size], pad_after: Sequence[Size]) -> Literal["inside", "replicated"]:
    return "inside"


def held_dtype(dtype: str) -> str:
    return dtype


def device_of(tensor: Tensor) -> Literal["cpu", "gpu"]:
    return "gpu" if _gpus() else "cpu"


def signature(tensor: Tensor) -> Hashable:
    shape = tensor.shape
    if shape.rank is None:
        return None
    sizes = tuple(shape.as_list())
    return None if None in sizes else (sizes, tensor.dtype)


@cache
def _gpus() -> list[Any]:
    return tf.config.list_physical_devices("GPU")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # TensorFlow counts the traces of bound methods by the function that they are made of, and warns of the fifth operator.
    return tf.function(partial(function))


def in_one(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def check_trained(variable: Any, layers: Sequence[Any]) -> None:
    pass


def wait(tensor: Tensor) -> None:
    if _gpus():  # on the CPU a call returns when it is done
        tf.reshape(tensor, (-1,))[:1].numpy()


def eagerly() -> AbstractContextManager[Any]:
    # Within `init_scope` no tape records, not even one that is opened there.
    return nullcontext() if tf.executing_eagerly() else tf.init_scope()


def is_concrete(tensors: Sequence[Tensor]) -> bool:
    return bool(tf.executing_eagerly())


def is_dense(tensor: Any) -> bool:
    return not isinstance(tensor, (tf.SparseTensor, tf.RaggedTensor, tf.IndexedSlices))


def variables_read(function: Callable[[], Sequence[Tensor]]) -> list[Any]:
    with tf.GradientTape() as tape:
        function()
    found = list(tape.watched_variables())
    with suppress(Exception):  # of whatever kind code raises that can only be run
        found += tf.function(partial(function)).get_concrete_function().variables  # also those that are not trained
    return found


def convolving(operation: Any, xs: Sequence[Any]) -> AbstractContextManager[Any]:
    return nullcontext()


def fixed_shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(map(int, tensor.shape))


def known_size(size: Size) -> Size:
    return size


def static(sizes: Any) -> Any:
    return sizes


def sum_sequential(term: Callable[..., Tensor], operand: Tensor, rows: Sequence[tuple[Any, ...]]) -> Tensor:
    total = term(operand, *rows[0])
    for row in rows[1:]:
        # TensorFlow would exchange the operands of a plain sum, and then hold one tensor more.
        total = tf.add_n([total, term(_after(total, operand), *row)])
    return total


def map_sequential(term: Callable[..., Tensor], operand: Tensor, rows: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    results = [term(operand, *rows[0])]
    for row in rows[1:]:
        results.append(term(_after(results[-1], operand), *row))
    return results


def _after(done: Tensor, operand: Tensor) -> Tensor:
    """`operand`, but not before `done` is computed: a graph would begin all terms at once, and hold them to the end."""
    with tf.control_dependencies([done]):
        return tf.identity(operand)


def convolve(x: Tensor, kernel: Tensor, pads: Pads, strides: Sequence[int], dilation: Sequence[int]) -> Tensor:
    *taps, in_channels, filters = kernel.shape.as_list()
    *sizes, channels = x.shape.as_list()[1:]
    padding_of: Callable[..., tuple[str, tuple[tuple[int, int], ...] | None]] = _cached_padding
    for before, after in pads:
        if type(before) is not int or type(after) is not int:
            padding_of = _padding  # tensors are no key
    padding, zeros = padding_of(tuple(sizes), tuple(taps), strides, dilation, tuple(pads))
    if zeros is None:
        x = window(x, *_windows(x, pads))
    elif zeros:
        x = ops.pad(x, zeros)
    if x.shape[0] == 0:
        return _without_samples(x, kernel, padding, strides, dilation)
    if in_channels == 1 and channels > 1 and len(taps) in DEPTHWISE_RANKS and len(set(strides)) == 1:
        # One input channel per group is a depthwise convolution, which has a much faster kernel.
        kernel = tf.reshape(kernel, (*taps, channels, filters // channels))
        dtype = x.dtype
        if _hangs(kernel, strides, dtype):
            x, kernel = tf.cast(x, tf.float32), tf.cast(kernel, tf.float32)
        return tf.cast(ops.depthwise_conv(x, kernel, strides, padding, "channels_last", dilation), dtype)
    if in_channels < channels and len(taps) == 3 and not _gpus():
        # On the CPU only XLA knows this, which takes longer than one convolution for each group, and no `vectorized_map`.
        groups = [tf.split(each, channels // in_channels, axis=-1) for each in (x, kernel)]
        parts = [ops.conv(*pair, strides, padding, "channels_last", dilation) for pair in zip(*groups, strict=True)]
        return tf.concat(parts, axis=-1)
    return ops.conv(x, kernel, strides, padding, "channels_last", dilation)


def _without_samples(
    x: Tensor, kernel: Tensor, padding: str, strides: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """The convolution of an empty batch, which oneDNN gives back as it came, in the sizes and channels of `x`."""
    outputs = []
    for size, taps, stride, step in zip(ops.shape(x)[1:-1], kernel.shape, strides, dilation, strict=False):
        starts = size if padding == "same" else size - (taps - 1) * step  # where a dilated kernel may begin
        outputs.append(-(-starts // stride))
    filters = tf.reduce_sum(kernel, tuple(range(len(kernel.shape) - 1)))
    return tf.reshape(x, (0, *outputs, 1)) * filters  # with derivatives by both


def _padding(
    sizes: Sequence[Size], taps: Sequence[int], strides: Sequence[int], dilation: Sequence[int], pads: Pads
) -> tuple[str, tuple[tuple[int, int], ...] | None]:
    """("same" or "valid", zeros to pad x with before that), or `None` for the zeros where a window of x has to be cut."""
    dilated_taps = [(size - 1) * step + 1 for size, step in zip(taps, dilation, strict=True)]
    if not all(is_known(zeros) and zeros >= 0 for pair in pads for zeros in pair):
        return "valid", None
    if not any(zeros for pair in pads for zeros in pair):
        return "valid", ()
    return ("same", ()) if _is_same(sizes, dilated_taps, strides, pads) else ("valid", ((0, 0), *pads, (0, 0)))


_cached_padding = lru_cache(CACHE_SIZE)(_padding)


def _hangs(kernel: Tensor, strides: Sequence[int], dtype: Any) -> bool:
    """Whether the depthwise convolution hangs, as oneDNN's does in half precision for few channels and long rows of taps."""
    *_, row, channels, multiplier = kernel.shape
    return dtype.size == 2 and row > 14 and channels <= 16 and multiplier == 1 and set(strides) == {1}


def can_transpose(convolution: Convolution, kind: str) -> bool:
    if kind == "grouped" or any(dilation > 1 for dilation in convolution.each("dilation")):
        return False  # neither has a kernel on the CPU
    strides = convolution.each("stride")
    return convolution.groups == 1 or (len(strides) in DEPTHWISE_RANKS and len(set(strides)) == 1)


def transposed_convolution(convolution: Convolution) -> Adjoint:
    taps, strides, groups = convolution.each("taps"), list(convolution.each("stride")), convolution.groups
    wanted, starts, rank = convolution.each("size"), convolution.each("pad_before"), len(strides)
    # oneDNN has "SAME" and "VALID", and does not take explicit pads.
    padding = convolution.padding
    same = _is_same(wanted, taps, strides, padding)
    whole = same or all(is_known(zeros) and zeros == 0 for pair in padding for zeros in pair)
    sizes = list(wanted)
    if not whole:  # the last positions, which nothing reads, come out as zeros, so that x only has to be cut
        sizes = [size + before + after for size, (before, after) in zip(sizes, padding, strict=True)]
    known_sizes = all(map(is_known, sizes))
    cut = None if whole or not known_sizes else _cut(starts, wanted, sizes)

    def transposed(y: Tensor, kernel: Tensor) -> Tensor:
        in_channels, batch = kernel.shape[-2], y.shape[0]
        depthwise = in_channels == 1 and groups > 1
        channels = in_channels * groups
        if depthwise:
            kernel = tf.reshape(kernel, (*taps, channels, -1))
        if rank == 1:  # an axis of one position, on which a depthwise kernel has the stride of the other
            y, kernel = tf.expand_dims(y, 1), tf.expand_dims(kernel, 0)
            x_sizes, steps = [1, *sizes], [1, strides[0] if depthwise else 1, *strides, 1]
        else:
            x_sizes, steps = sizes, [1, *strides, 1]
        x_shape = [tf.shape(y)[0] if batch is None else batch, *x_sizes, channels]
        x = _TRANSPOSED["depthwise" if depthwise else rank](
            # An eager call would take as long for three operations on sizes as for a small convolution.
            input_sizes=x_shape if known_sizes and batch is not None else tf.stack(x_shape),
            filter=kernel,
            out_backprop=y,
            strides=steps,
            padding="SAME" if same else "VALID",
        )
        x = tf.squeeze(x, 1) if rank == 1 else x
        if whole:
            return x
        return window(x, starts, wanted) if cut is None else x[cut]

    return transposed


_TRANSPOSED = {
    1: tf.raw_ops.Conv2DBackpropInput,
    2: tf.raw_ops.Conv2DBackpropInput,
    3: tf.raw_ops.Conv3DBackpropInputV2,
    "depthwise": tf.raw_ops.DepthwiseConv2dNativeBackpropInput,
}


def differentiable(form: Form) -> Adjoint:
    convolution = form.convolution
    dilated = set(convolution.each("dilation")) != {1}
    has_forward = not dilated or set(convolution.each("stride")) == {1}
    if form.is_native or not convolution.is_known or not has_forward:
        return form.prepare()  # every operation in it has its own derivatives
    by_forward = _differentiated_by_forward(form)

    def adjoint(y: Tensor, kernel: Tensor) -> Tensor:
        y, kernel = tf.convert_to_tensor(y), tf.convert_to_tensor(kernel)  # a custom gradient is by tensors alone
        if dilated or (convolution.groups > 1 and kernel.shape[-2] > 1):
            return _gradient_of_form("x", form, y=y, kernel=kernel)
        return by_forward(y, kernel)

    return adjoint


def _differentiated_by_forward(form: Form) -> Adjoint:
    """The adjoint, whose derivatives are the forward and its gradient by the kernel, as TensorFlow has them."""
    prepared = form.prepare()

    @tf.custom_gradient
    def adjoint(y: Tensor, kernel: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        def gradients(cotangent: Tensor) -> tuple[Tensor, Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                forward = form.y(cotangent, kernel)
            return forward, tape.gradient(forward, kernel, output_gradients=y)

        return prepared(y, kernel), gradients

    return adjoint


def _gradient_of_form(wanted: str, form: Form, **others: Tensor) -> Tensor:
    """The gradient of a form by the argument `wanted`, for given other two; its derivatives are the form's other gradients.

    TensorFlow's own gradients of grouped kernels take some hundred times the forward, those of dilated ones up to twice.
    """

    @tf.custom_gradient
    def gradient(*operands: Tensor) -> tuple[Tensor, Callable[[Tensor], list[Tensor]]]:
        def gradients(cotangent: Tensor) -> list[Tensor]:
            arguments = {wanted: cotangent, **dict(zip(others, operands, strict=True))}
            return [
                _gradient_of_form(name, form, **{other: arguments[other] for other in arguments if other != name})
                for name in others
            ]

        return getattr(form, wanted)(**dict(zip(others, operands, strict=True))), gradients

    return gradient(*others.values())


def vjp(function: Callable[[Any], Any], x: Any, y: Any) -> Any:
    x = tf.nest.map_structure(tf.identity, x)  # a tensor that comes twice is two, which the tape would take for one
    with tf.GradientTape() as tape, twice_differentiable():
        tape.watch(x)
        result = function(x)
    found = tape.gradient(result, x, output_gradients=y, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.nest.map_structure(tf.convert_to_tensor, found)  # of what was gathered it is sparse


def linear_vjp(function: Callable[[list[Tensor]], list[Tensor]], zeros: list[Tensor], y: list[Tensor]) -> list[Tensor]:
    if in_stateless_scope():  # where variables have other values than their own, which a custom gradient does not see
        return list(vjp(function, zeros, y))

    # Some of TensorFlow's gradients, those of resized images for instance, have no gradient themselves, and it stays silent.
    def linear(xs: Sequence[Tensor]) -> list[Tensor]:
        return [at_x - at_zero for at_x, at_zero in zip(function(list(xs)), function(zeros), strict=True)]

    def by_variables(xs: Sequence[Tensor], ys: Sequence[Tensor], variables: Sequence[Any]) -> list[Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(variables)
            product = tf.add_n([tf.reduce_sum(each * other) for each, other in zip(linear(xs), ys, strict=True)])
        return list(tape.gradient(product, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO))

    @tf.custom_gradient
    def forward(*xs: Tensor) -> tuple[list[Tensor], Callable[..., Any]]:
        def gradients(*ys: Tensor, variables: Sequence[Any] = ()) -> Any:
            found = transposed(*ys)
            return (found, by_variables(xs, ys, variables)) if variables else found

        return linear(xs), gradients

    @tf.custom_gradient
    def transposed(*ys: Tensor) -> tuple[list[Tensor], Callable[..., Any]]:
        def gradients(*xs: Tensor, variables: Sequence[Any] = ()) -> Any:
            found = forward(*xs)
            return (found, by_variables(xs, ys, variables)) if variables else found

        return vjp(function, zeros, list(ys)), gradients

    found: list[Tensor] = transposed(*y)
    return found


def custom_gradient(
    function: Callable[[Sequence[Tensor]], Tensor],
    gradient: Callable[[Sequence[Tensor], Tensor], list[Tensor]],
    operands: Sequence[Tensor],
) -> Tensor:
    @tf.custom_gradient
    def call(*operands: Tensor) -> tuple[Tensor, Callable[[Tensor], list[Tensor]]]:
        return function(operands), lambda cotangent: gradient(operands, cotangent)

    return call(*operands)


def linear_on_host(product: HostProduct, transposed: HostProduct, rows: Tensor) -> Tensor:
    @tf.custom_gradient
    def linear(rows: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        found = tf.numpy_function(product, [rows], rows.dtype, stateful=False)
        found.set_shape((rows.shape[0], product.outputs))
        return found, lambda cotangent: linear_on_host(transposed, product, cotangent)

    return linear(rows)


def _cut(starts: Sequence[int], lengths: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...] | None:
    """The slices that cut windows out of spatial axes of `sizes`, or `None` if they reach beyond."""
    ends = [start + length for start, length in zip(starts, lengths, strict=True)]
    if any(end > size for end, size in zip(ends, sizes, strict=True)):
        return None
    return (slice(None), *map(slice, starts, ends))


def _windows(x: Tensor, pads: Pads) -> tuple[list[Size], list[Size]]:
    """(starts, lengths) of what pads make of the spatial axes."""
    sizes = ops.shape(x)[1:-1]
    return [-before for before, _ in pads], [
        before + size + after for size, (before, after) in zip(sizes, pads, strict=True)
    ]


def _is_same(sizes: Sequence[Size], dilated_taps: Sequence[int], strides: Sequence[int], pads: Pads) -> bool:
    """Whether TensorFlow's "SAME" pads like this."""
    for size, taps, stride, pair in zip(sizes, dilated_taps, strides, pads, strict=True):
        if not all(map(is_known, (size, *pair))):
            return False
        zeros = max((-(-size // stride) - 1) * stride + taps - size, 0)
        if pair != (zeros // 2, zeros - zeros // 2):
            return False
    return True
