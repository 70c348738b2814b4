"""A context in which adjoints are traced for a file rather than for speed."""

import threading
from dataclasses import dataclass
from typing import Any, Self

from keras_adjoint.errors import KerasAdjointError, in_short, one_of


@dataclass(frozen=True)
class Format:
    """What matters of a file format that `model.export` writes.

    Attributes:
        tells_kernels_apart_by_shape: Whether its reader computes wrong outputs where a convolution and a transposed one
            share a constant whose shape does not say which of the two it belongs to. OpenVINO 2026.4 does.
    """

    tells_kernels_apart_by_shape: bool = False


FORMATS = {
    "tf_saved_model": Format(),
    "onnx": Format(),
    "openvino": Format(tells_kernels_apart_by_shape=True),
    "litert": Format(),
    "torch": Format(),
}


_UNTRACED = "fake tensor in the exported program constant's list"  # in the message of `torch.export`


class _Tracing(threading.local):
    """The format that this thread traces for. No `ContextVar`, for `torch.compile` cannot read one."""

    format: Format | None = None


TRACING = _Tracing()


def is_exporting() -> bool:
    """Whether the current trace is for a file."""
    return TRACING.format is not None


def may_share(channels: int, filters: int) -> bool:
    """Whether a convolution and its adjoint may read one kernel, of these channels, in the file that is being written."""
    target = TRACING.format
    return target is not None and not (target.tells_kernels_apart_by_shape and channels == filters)


class exporting:
    """Context manager within which `model.export` writes adjoint convolutions as plain transposed convolutions.

    The algorithms that are made for speed rearrange the kernel. A converter that turns variables into constants stores
    the rearranged kernel, which is a second one. A plain transposed convolution reads the kernel as it is, so ONNX and
    OpenVINO files then hold it once. Adjoints of grouped and dilated convolutions, for which Keras does not have a
    transposed convolution on every backend, are written as they are computed outside of the context.

    Args:
        format: The format that `model.export` is called with: "tf_saved_model", "onnx", "openvino", "litert" or "torch".

    Example:

    >>> inputs = keras.Input((9, 8, 3))
    >>> conv = keras.layers.Conv2D(4, 3, strides=2)
    >>> features = conv(inputs)
    >>> model = keras.Model(inputs, ka.adjoint(conv)(features))
    >>> with ka.exporting("onnx"):
    ...     model.export("model.onnx", format="onnx")  # doctest: +SKIP
    """

    def __init__(self, format: str) -> None:
        self.format = one_of("format", format, FORMATS)

    def __enter__(self) -> Self:
        self._outer, TRACING.format = TRACING.format, FORMATS[self.format]
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        TRACING.format = self._outer
        if self.format == "torch" and error is not None and _UNTRACED in str(error):
            raise KerasAdjointError(
                "`torch.export` cannot record the gradient of some operations, of `torch.nn.functional.interpolate` and "
                "`torch.einsum` for instance, and automatic adjoints are computed as gradients. Export "
                "`keras_adjoint.untie(model)`, in which the adjoint of what has no weights is a product with its matrix, or "
                f"teach the adjoint with `@keras_adjoint.register_rule`. Received: {in_short(error)}"
            ) from error
