"""Other attempts to reuse a kernel, made on the encoder's layers and measured beside the adjoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import keras
import numpy as np
from keras import layers

import keras_adjoint as ka
from keras_adjoint.models.text import size_text
from keras_adjoint.ops import Shape

Layer: TypeAlias = keras.layers.Layer


@dataclass(frozen=True)
class Attempt:
    """A method used in place of the adjoint of a layer, and its outcome."""

    layer: str
    method: str
    passed: bool
    outcome: str
    residual: float | None = None  # `None` if there is no operator of the right size


def try_everything(conv: Layer, decoder: keras.Model) -> list[Attempt]:
    """All attempts for one convolution of the encoder, the decoder's own adjoint layer first."""
    shape = (1, *conv.input.shape[1:])
    kernel = keras.ops.convert_to_numpy(conv.kernel)
    same_settings = stock_transpose(conv, kernel)
    return [
        adjoint_of(conv, decoder),
        measured(conv, "Conv2DTranspose, same settings and kernel", same_settings, shape),
        *cropped(conv, same_settings, shape),
        swapped(conv, kernel, shape),
        on_unbuilt(conv, kernel),
        as_convolution(conv, kernel, shape),
    ]


def adjoint_of(conv: Layer, decoder: keras.Model) -> Attempt:
    """The layer that the decoder uses, without its bias."""
    report = ka.check_adjoint(decoder.get_layer(f"adjoint_of_{conv.name}"))
    outcome = f"residual {report.residual:.1e}, tolerance {report.tolerance:.1e}"
    return Attempt(conv.name, "ka.adjoint", report.passed, outcome, report.residual)


def stock_transpose(conv: Layer, kernel: np.ndarray) -> Layer:
    """The transposed convolution with the convolution's hyper-parameters and this kernel."""
    channels = conv.input.shape[-1]
    settings = {"strides": conv.strides, "padding": conv.padding, "use_bias": False, "name": "transpose"}
    layer = layers.Conv2DTranspose(channels, conv.kernel_size, **settings)
    layer.build(conv.output.shape)
    layer.set_weights([kernel])
    return layer


def measured(conv: Layer, method: str, backward: Layer, shape: Shape) -> Attempt:
    """The adjoint test of a layer that takes the convolution's output."""
    report = ka.check_adjoint(conv, backward, input_shape=shape)
    if np.isinf(report.residual):
        return Attempt(conv.name, method, False, wrong_size(backward, conv))
    outcome = f"residual {report.residual:.1e}" + ("" if report else f": {report.diagnosis}")
    return Attempt(conv.name, method, report.passed, outcome, report.residual)


def wrong_size(backward: Layer, conv: Layer) -> str:
    returned = backward.compute_output_shape(conv.output.shape)
    return f"wrong size: {size_text(returned[1:])} for {size_text(conv.input.shape[1:])}"


def surplus(conv: Layer, backward: Layer) -> list[int]:
    """The numbers of surplus rows and columns that a layer returns."""
    returned = backward.compute_output_shape(conv.output.shape)
    return [found - wanted for found, wanted in zip(returned[1:-1], conv.input.shape[1:-1], strict=True)]


def crop(conv: Layer, backward: Layer, cropping: Sequence[tuple[int, int]]) -> keras.Sequential:
    return keras.Sequential([keras.Input(conv.output.shape[1:]), backward, layers.Cropping2D(list(cropping))])


def cropped(conv: Layer, backward: Layer, shape: Shape) -> list[Attempt]:
    """What a layer returns, cropped at its end and at its start, if it is too large."""
    extra = surplus(conv, backward)
    if not any(extra):
        return []
    at_end, at_start = [(0, n) for n in extra], [(n, 0) for n in extra]
    return [
        measured(conv, "… its last row and column cropped", crop(conv, backward, at_end), shape),
        measured(conv, "… its first row and column cropped", crop(conv, backward, at_start), shape),
    ]


def swapped(conv: Layer, kernel: np.ndarray, shape: Shape) -> Attempt:
    """The recipe that swaps the kernel's H and W, with the best of all croppings where its size is wrong."""
    method = "Conv2DTranspose, H and W of the kernel swapped"
    backward = stock_transpose(conv, np.swapaxes(kernel, 0, 1))
    extra = surplus(conv, backward)
    if not any(extra):
        return measured(conv, method, backward, shape)
    crops = product(*([(0, n), (n, 0)] for n in extra))
    reports = [ka.check_adjoint(conv, crop(conv, backward, cropping), input_shape=shape) for cropping in crops]
    best = min(report.residual for report in reports)
    outcome = f"{wrong_size(backward, conv)}; however it is cropped, residual {best:.1e} or more"
    return Attempt(conv.name, method, any(reports), outcome, best)


def on_unbuilt(conv: Layer, kernel: np.ndarray) -> Attempt:
    """The recipe as it is usually printed: axes 1 and 2 swapped, set on a layer that has no weights yet."""
    layer = layers.Conv2DTranspose(conv.input.shape[-1], conv.kernel_size, use_bias=False, name="transpose")
    method = "… set on a layer that is not built"
    try:
        layer.set_weights([np.transpose(kernel, (0, 2, 1, 3))])
    except ValueError as error:
        return Attempt(conv.name, method, False, first_sentence(error))
    return Attempt(conv.name, method, True, "no error")


def as_convolution(conv: Layer, kernel: np.ndarray, shape: Shape) -> Attempt:
    """The kernel unchanged in another `Conv2D`."""
    layer = layers.Conv2D(conv.input.shape[-1], conv.kernel_size, padding=conv.padding, use_bias=False, name="reuse")
    layer.build(conv.output.shape)
    method = "Conv2D with the same kernel"
    try:
        layer.set_weights([kernel])
    except ValueError as error:
        return Attempt(conv.name, method, False, first_sentence(error))
    return measured(conv, method, layer, shape)


def first_sentence(error: Exception) -> str:
    """The type and the first sentence of an exception, in one line."""
    text = " ".join(str(error).split()).split(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {text}"
