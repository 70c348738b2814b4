"""What else people do to reuse a kernel, done to the encoder's layers and measured beside the adjoint."""

from dataclasses import dataclass
from itertools import product

import keras
import numpy as np
from keras import layers

import keras_adjoint as ka
from keras_adjoint.models.text import size_text


@dataclass(frozen=True)
class Attempt:
    """One way to go back through one layer, and what came of it."""

    layer: str
    way: str
    passed: bool
    outcome: str
    residual: float | None = None  # `None` if there is no operator of the right size


def try_everything(conv, decoder):
    """All attempts for one convolution of the encoder, the decoder's own adjoint layer first."""
    shape = (1, *conv.input.shape[1:])
    kernel = keras.ops.convert_to_numpy(conv.kernel)
    same_settings = stock_transpose(conv, kernel)
    attempts = [
        adjoint_of(conv, decoder),
        measured(conv, "Conv2DTranspose, same settings and kernel", same_settings, shape),
        *cropped(conv, same_settings, shape),
        swapped(conv, kernel, shape),
        on_unbuilt(conv, kernel),
        as_convolution(conv, kernel, shape),
    ]
    return [attempt for attempt in attempts if attempt is not None]


def adjoint_of(conv, decoder):
    """The layer that the decoder really uses, its bias left aside."""
    report = ka.check_adjoint(decoder.get_layer(f"adjoint_of_{conv.name}"))
    outcome = f"residual {report.residual:.1e}, tolerance {report.tolerance:.1e}"
    return Attempt(conv.name, "ka.adjoint", report.passed, outcome, report.residual)


def stock_transpose(conv, kernel):
    """The transposed convolution that has the convolution's hyper-parameters, with this kernel."""
    channels = conv.input.shape[-1]
    settings = {"strides": conv.strides, "padding": conv.padding, "use_bias": False, "name": "transpose"}
    layer = layers.Conv2DTranspose(channels, conv.kernel_size, **settings)
    layer.build(conv.output.shape)
    layer.set_weights([kernel])
    return layer


def measured(conv, way, backward, shape):
    """The adjoint test of any layer that takes the convolution's output."""
    report = ka.check_adjoint(conv, backward, input_shape=shape)
    if np.isinf(report.residual):
        return Attempt(conv.name, way, False, wrong_size(backward, conv))
    outcome = f"residual {report.residual:.1e}" + ("" if report else f": {report.diagnosis}")
    return Attempt(conv.name, way, report.passed, outcome, report.residual)


def wrong_size(backward, conv):
    returned = backward.compute_output_shape(conv.output.shape)
    return f"wrong size: {size_text(returned[1:])} for {size_text(conv.input.shape[1:])}"


def surplus(conv, backward):
    """How many rows and columns too many a layer returns."""
    returned = backward.compute_output_shape(conv.output.shape)
    return [found - wanted for found, wanted in zip(returned[1:-1], conv.input.shape[1:-1], strict=True)]


def crop(conv, backward, cropping):
    return keras.Sequential([keras.Input(conv.output.shape[1:]), backward, layers.Cropping2D(cropping)])


def cropped(conv, backward, shape):
    """Both ways to get rid of what is too much, if it is."""
    extra = surplus(conv, backward)
    if not any(extra):
        return []
    behind, front = [(0, n) for n in extra], [(n, 0) for n in extra]
    return [
        measured(conv, "… its last row and column cropped", crop(conv, backward, behind), shape),
        measured(conv, "… its first row and column cropped", crop(conv, backward, front), shape),
    ]


def swapped(conv, kernel, shape):
    """The recipe that swaps the kernel's H and W, cropped in the best of all ways where its size is wrong."""
    way = "Conv2DTranspose, H and W of the kernel swapped"
    backward = stock_transpose(conv, np.swapaxes(kernel, 0, 1))
    extra = surplus(conv, backward)
    if not any(extra):
        return measured(conv, way, backward, shape)
    crops = product(*([(0, n), (n, 0)] for n in extra))
    reports = [ka.check_adjoint(conv, crop(conv, backward, list(cropping)), input_shape=shape) for cropping in crops]
    best = min(report.residual for report in reports)
    outcome = f"{wrong_size(backward, conv)}; however it is cropped, residual {best:.1e} or more"
    return Attempt(conv.name, way, any(reports), outcome, best)


def on_unbuilt(conv, kernel):
    """The recipe as it is usually printed: axes 1 and 2 swapped, set on a layer that has no weights yet."""
    layer = layers.Conv2DTranspose(conv.input.shape[-1], conv.kernel_size, use_bias=False, name="transpose")
    way = "… set on a layer that is not built"
    try:
        layer.set_weights([np.transpose(kernel, (0, 2, 1, 3))])
    except ValueError as error:
        return Attempt(conv.name, way, False, first_sentence(error))
    return Attempt(conv.name, way, True, "no error")


def as_convolution(conv, kernel, shape):
    """The kernel as it is in another `Conv2D`."""
    layer = layers.Conv2D(conv.input.shape[-1], conv.kernel_size, padding=conv.padding, use_bias=False, name="reuse")
    layer.build(conv.output.shape)
    way = "Conv2D with the same kernel"
    try:
        layer.set_weights([kernel])
    except ValueError as error:
        return Attempt(conv.name, way, False, first_sentence(error))
    return measured(conv, way, layer, shape)


def first_sentence(error):
    """What an exception says, up to its first full stop, in one line."""
    text = " ".join(str(error).split()).split(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {text}"
