"""A context in which adjoints are traced for a file rather than for speed."""

import threading

FORMATS = ("tf_saved_model", "onnx", "openvino", "litert", "torch")


class _Tracing(threading.local):
    """The format that this thread traces for. No `ContextVar`, for `torch.compile` cannot read one."""

    format: str | None = None


_TRACING = _Tracing()


def is_exporting():
    """Whether what is traced now is for a file."""
    return _TRACING.format is not None


def may_share(kernel):
    """Whether a convolution and its adjoint are to read one kernel in the file that is being written."""
    *_, channels, filters = map(int, kernel.shape)
    # OpenVINO 2026.4 computes wrong outputs where a convolution and a transposed one share a constant whose shape does
    # not tell the two apart.
    return is_exporting() and not (_TRACING.format == "openvino" and channels == filters)


class exporting:
    """Context manager within which `model.export` writes adjoint convolutions as plain transposed convolutions.

    The algorithms that are made for speed rearrange the kernel. A converter that turns variables into constants stores
    what comes of that, which is a second kernel. A plain transposed convolution reads the kernel as it is, and ONNX and
    OpenVINO files then hold it once. Adjoints of grouped and dilated convolutions, which Keras has no transposed
    convolution for on every backend, are written as they are computed outside of the context.

    Args:
        format: What `model.export` is told: "tf_saved_model", "onnx", "openvino", "litert" or "torch".

    Example:

    >>> inputs = keras.Input((9, 8, 3))
    >>> conv = keras.layers.Conv2D(4, 3, strides=2)
    >>> features = conv(inputs)
    >>> model = keras.Model(inputs, ka.adjoint(conv)(features))
    >>> with ka.exporting("onnx"):
    ...     model.export("model.onnx", format="onnx")  # doctest: +SKIP
    """

    def __init__(self, format: str) -> None:
        if format not in FORMATS:
            raise ValueError(f"`format` must be one of {', '.join(FORMATS)}. Received: format={format!r}")
        self.format = format

    def __enter__(self):
        self._before, _TRACING.format = _TRACING.format, self.format
        return self

    def __exit__(self, *exception):
        _TRACING.format = self._before
