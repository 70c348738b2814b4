"""A context in which adjoints are traced for a file rather than for speed."""

from contextvars import ContextVar

_EXPORTING = ContextVar("exporting", default=False)


def is_exporting():
    """Whether the adjoints called now are to be written to a file."""
    return _EXPORTING.get()


class exporting:
    """Context manager within which `model.export` writes adjoint convolutions as plain transposed convolutions.

    The lowerings that are made for speed rearrange the kernel. A converter that turns variables into constants stores
    what comes of that, which is a second kernel. A plain transposed convolution reads the kernel as it is, and ONNX and
    OpenVINO files then hold it once. Adjoints of grouped and dilated convolutions, which Keras has no transposed
    convolution for on every backend, are written as they are computed outside of the context.

    Example:

    >>> inputs = keras.Input((9, 8, 3))
    >>> conv = keras.layers.Conv2D(4, 3, strides=2)
    >>> features = conv(inputs)
    >>> model = keras.Model(inputs, ka.adjoint(conv)(features))
    >>> with ka.exporting():
    ...     model.export("model.onnx", format="onnx")  # doctest: +SKIP
    """

    def __enter__(self):
        self._token = _EXPORTING.set(True)
        return self

    def __exit__(self, *exception):
        _EXPORTING.reset(self._token)
