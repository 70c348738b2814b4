"""The functions of `keras.ops` that are linear in their tensors, each called on symbolic tensors with constants."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

GENERATOR = np.random.default_rng(5)
ROWS = GENERATOR.normal(size=(4, 3)).astype("float32")
ROW = GENERATOR.normal(size=(3,)).astype("float32")
SQUARE = (GENERATOR.normal(size=(3, 3)) + 3 * np.eye(3)).astype("float32")
LOWER = np.tril(SQUARE)
KERNEL = GENERATOR.normal(size=(2, 2, 3, 2)).astype("float32")
POINTWISE = GENERATOR.normal(size=(1, 1, 6, 2)).astype("float32")
BOOLEANS = ROWS > 0
IMAGE = (4, 5, 3)


@dataclass(frozen=True)
class Applied:
    """A function on symbolic tensors of these shapes, without the batch axis."""

    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    batch: int | None = None


def on(*shapes):
    """Decorator-like: `on((4, 3))(function)`; further functions are further uses."""
    return lambda *functions: [Applied(function, shapes) for function in functions]


def of_a_batch(batch, *shapes):
    """The same for a fixed number of samples."""
    return lambda *functions: [Applied(function, shapes, batch) for function in functions]


rows, pair, image = on((4, 3)), on((4, 3), (4, 3)), on(IMAGE)

# Functions that Keras 3.10 lacks are looked up when they are called.
# Each must have a right adjoint. What else `keras.ops` has is tried in a general way, and must be right or refused.
LINEAR: dict[str, list[Applied]] = {
    "adaptive_average_pool": [],  # Keras announces a wrong shape for symbolic tensors
    "add": [*rows(lambda x: ops.add(x, ROW), lambda x: ops.add(ROWS[None], x)), *pair(lambda x, y: ops.add(x, y))],
    "append": pair(lambda x, y: ops.append(x, y, axis=-1)),
    "array": rows(ops.array),
    "array_split": rows(lambda x: ops.concatenate(ops.array_split(x, 2, axis=-1)[::-1], axis=2)),
    "average": rows(lambda x: ops.average(x, axis=1), lambda x: ops.average(x, axis=-1, weights=ROW + 4)),
    "average_pool": image(lambda x: ops.average_pool(x, 2, 2, padding="same")),
    "batch_normalization": rows(lambda x: ops.batch_normalization(x, ROW, ROW**2 + 1, axis=-1, scale=ROW)),
    "broadcast_to": of_a_batch(2, (4, 1))(lambda x: ops.broadcast_to(x, (2, 4, 3))),
    "cast": rows(lambda x: ops.cast(x, "float32")),
    "concatenate": pair(lambda x, y: ops.concatenate([x, y], axis=1), lambda x, y: ops.concatenate([y, x, x], axis=-1)),
    "conj": rows(ops.conj),
    "conjugate": rows(ops.conjugate),
    "conv": image(lambda x: ops.conv(x, KERNEL, strides=2, padding="same")),
    "conv_transpose": [],  # Keras passes its arguments in another order to symbolic calls, which then fail
    "convert_to_tensor": rows(ops.convert_to_tensor),
    "copy": rows(ops.copy),
    "correlate": [],  # along the axis of the samples
    "cross": of_a_batch(2, (4, 3))(lambda x: ops.cross(x, np.stack([ROWS, ROWS]))),
    "cumsum": rows(lambda x: ops.cumsum(x, axis=1)),
    "deg2rad": rows(lambda x: ops.deg2rad(x)),
    "depth_to_space": on((2, 3, 8))(lambda x: ops.depth_to_space(x, 2)),
    "depthwise_conv": image(lambda x: ops.depthwise_conv(x, KERNEL)),
    "diagonal": rows(lambda x: ops.diagonal(x, axis1=1, axis2=2)),
    "diff": rows(lambda x: ops.diff(x, axis=1), lambda x: ops.diff(x, n=2)),
    "divide": rows(lambda x: ops.divide(x, ROW)),
    "divide_no_nan": rows(lambda x: ops.divide_no_nan(x, ROW)),
    "dot": rows(lambda x: ops.dot(x, SQUARE)),
    "dsplit": rows(lambda x: ops.dsplit(x, 3)),
    "einsum": [
        *rows(lambda x: ops.einsum("bij,jk->bik", x, SQUARE), lambda x: ops.einsum("bij->bji", x)),
        *rows(lambda x: ops.einsum("bij->b", x)),
    ],
    "expand_dims": rows(lambda x: ops.expand_dims(x, 2), lambda x: ops.expand_dims(x, -1)),
    "extract_sequences": on((9,))(lambda x: ops.extract_sequences(x, 4, 2)),
    "fft": on((6,), (6,))(lambda x, y: ops.fft((x, y))),
    "fft2": on((4, 3), (4, 3))(lambda x, y: ops.fft2((x, y))),
    "flip": rows(lambda x: ops.flip(x, axis=1), lambda x: ops.flip(x, axis=(1, 2))),
    "fliplr": rows(lambda x: ops.fliplr(x)),
    "fold": on((12, 4))(lambda x: ops.fold(x, (3, 3), 2)),
    "get_item": rows(lambda x: x[:, 1:, ::2], lambda x: ops.get_item(x, (slice(None), 2)), lambda x: x[..., None, -1]),
    "hsplit": rows(lambda x: ops.hsplit(x, 2)),
    "hstack": pair(lambda x, y: ops.hstack([x, y])),
    "ifft2": on((4, 3), (4, 3))(lambda x, y: ops.ifft2((x, y))),
    "imag": [],  # of complex numbers
    "inner": rows(lambda x: ops.inner(x, ROW)),
    "irfft": on((5,), (5,))(lambda x, y: ops.irfft((x, y))),
    "istft": on((5, 5), (5, 5))(lambda x, y: ops.istft((x, y), 8, 4, 8)),
    "kron": [],  # of the axis of the samples, too
    "lstsq": [],  # of two axes or less
    "matmul": rows(lambda x: ops.matmul(x, SQUARE), lambda x: ops.matmul(ROWS.T, x), lambda x: x @ ROW),
    "mean": rows(lambda x: ops.mean(x, axis=1), lambda x: ops.mean(x, axis=(1, 2), keepdims=True)),
    "meshgrid": [],  # of the axis of the samples
    "moveaxis": rows(lambda x: ops.moveaxis(x, 1, -1)),
    "multiply": rows(lambda x: ops.multiply(x, ROW), lambda x: 3 * x),
    "nan_to_num": [],  # not linear beyond the largest number
    "negative": rows(ops.negative),
    "outer": [],  # of the axis of the samples, too
    "pad": rows(
        lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 1]]), lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 1]], mode="reflect")
    ),
    "rad2deg": rows(lambda x: ops.rad2deg(x)),
    "real": rows(ops.real),
    "rearrange": of_a_batch(2, (4, 3))(lambda x: ops.rearrange(x, "b i j -> b (j i)")),
    "repeat": rows(lambda x: ops.repeat(x, 2, axis=1), lambda x: ops.repeat(x, 3, axis=-1)),
    "reshape": rows(lambda x: ops.reshape(x, (-1, 2, 6)), lambda x: ops.reshape(x, (-1, 12))),
    "rfft": on((6,))(lambda x: ops.rfft(x)),
    "roll": rows(lambda x: ops.roll(x, 1, axis=1), lambda x: ops.roll(x, (1, -1), axis=(1, 2))),
    "rot90": rows(lambda x: ops.rot90(x, axes=(1, 2))),
    "saturate_cast": [],  # to another precision it saturates
    "segment_sum": [],  # along the axis of the samples
    "separable_conv": image(lambda x: ops.separable_conv(x, KERNEL, POINTWISE, padding="same")),
    "slice": of_a_batch(2, (4, 3))(lambda x: ops.slice(x, (0, 1, 0), (2, 2, 3))),
    "select": rows(lambda x: ops.select([BOOLEANS, ROWS < -1], [x, 2 * x], -x)),
    "slice_update": [
        *of_a_batch(2, (4, 3), (2, 3))(lambda x, y: ops.slice_update(x, (0, 1, 0), y)),
        *of_a_batch(2, (4, 3))(lambda x: ops.slice_update(x, (0, 1, 1), np.ones((2, 2, 2), "float32"))),
    ],
    "solve": of_a_batch(2, (4, 3))(lambda x: ops.solve(np.stack([SQUARE, SQUARE]), ops.swapaxes(x, 1, 2))),
    "solve_triangular": rows(lambda x: ops.solve_triangular(LOWER[None], ops.swapaxes(x, 1, 2), lower=True)),
    "space_to_depth": on((4, 6, 2))(lambda x: ops.space_to_depth(x, 2)),
    "split": rows(lambda x: ops.split(x, 3, axis=2), lambda x: ops.split(x, [1, 3], axis=1)),
    "squeeze": on((4, 1))(lambda x: ops.squeeze(x, 2), lambda x: ops.squeeze(x, -1)),
    "stack": pair(lambda x, y: ops.stack([x, y], axis=1), lambda x, y: ops.stack([x, y, x], axis=-1)),
    "stft": on((20,))(lambda x: ops.stft(x, 8, 4, 8)),
    "subtract": [*rows(lambda x: ops.subtract(ROW, x)), *pair(lambda x, y: ops.subtract(x, y))],
    "sum": rows(lambda x: ops.sum(x, axis=-1), lambda x: ops.sum(x, axis=(1, 2))),
    "swapaxes": rows(lambda x: ops.swapaxes(x, 1, 2)),
    "take": rows(lambda x: ops.take(x, [2, 0, 0], axis=1), lambda x: ops.take(x, 1, axis=-1)),
    "take_along_axis": rows(lambda x: ops.take_along_axis(x, np.array([[[2], [0], [0], [1]]]), axis=2)),
    "tensordot": rows(lambda x: ops.tensordot(x, SQUARE, axes=1), lambda x: ops.tensordot(x, ROWS, axes=[[1], [0]])),
    "tile": rows(lambda x: ops.tile(x, (1, 2, 3))),
    "trace": rows(lambda x: ops.trace(x, axis1=1, axis2=2)),
    "transpose": rows(lambda x: ops.transpose(x, (0, 2, 1))),
    "trapezoid": rows(lambda x: ops.trapezoid(x, axis=1), lambda x: ops.trapezoid(x, dx=0.5)),
    "tril": rows(ops.tril),
    "triu": rows(lambda x: ops.triu(x, k=1)),
    "true_divide": rows(lambda x: ops.true_divide(x, 2.0)),
    "unfold": on((3, 4, 4))(lambda x: ops.unfold(x, 2)),
    "unstack": rows(lambda x: ops.unstack(x, axis=1), lambda x: ops.unstack(x, 3, axis=-1)[1]),
    "view_as_real": [],  # of complex numbers
    "view_as_complex": [],
    "vstack": [],  # along the axis of the samples
    "where": rows(lambda x: ops.where(BOOLEANS, x, 0.0), lambda x: ops.where(BOOLEANS, 1.0, x)),
}

# What cannot be called on symbolic tensors alone, or gives infinities and NaN for the samples of the tests.
NOT_CALLED = {
    "adaptive_max_pool", "arange", "arccos", "arccosh", "arctanh", "bartlett", "binary_crossentropy", "bincount",
    "bitwise_and", "bitwise_invert", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "blackman",
    "cholesky", "cond", "convert_to_numpy", "ctc_loss", "custom_gradient", "dot_product_attention", "empty", "eye",
    "fori_loop", "full", "gcd", "hamming", "hanning", "histogram", "identity", "is_tensor", "jvp", "lcm",
    "left_shift", "log", "log10", "log1p", "logdet", "map", "multi_hot", "nonzero", "one_hot", "ones", "psnr",
    "right_shift", "scan", "scatter", "scatter_update", "segment_prod", "select", "shape",
    "sparse_categorical_crossentropy", "sqrt", "switch", "tri", "vander", "vectorize", "vectorized_map",
    "while_loop", "zeros",
}  # fmt: skip
# What Keras itself does not run on a backend.
NOT_ON = {("conv_transpose", 0): ("tensorflow", "torch"), ("cross", 0): ("torch",)}
