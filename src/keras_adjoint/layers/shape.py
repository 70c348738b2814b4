"""The adjoints of layers that move numbers without changing them. Most are stock layers themselves."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.layers import Layer

from keras_adjoint.errors import NoRuleError, SizeError
from keras_adjoint.keras_internals import StochasticDepth
from keras_adjoint.layers.inputs import Expected, accept
from keras_adjoint.layers.registry import describe, rule
from keras_adjoint.layers.sizes import is_shaped_like, recorded_shapes, standardize_shape, where_fixed
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.axes import move_axis
from keras_adjoint.ops.geometry import is_known
from keras_adjoint.ops.window import window

_PADDINGS = {
    keras.layers.ZeroPadding1D: keras.layers.Cropping1D,
    keras.layers.ZeroPadding2D: keras.layers.Cropping2D,
    keras.layers.ZeroPadding3D: keras.layers.Cropping3D,
}
_CROPPINGS = {cropping: padding for padding, cropping in _PADDINGS.items()}


@rule(*_PADDINGS)
def padding(source: Layer, *, name: str | None = None) -> Layer:
    """Padding writes a window and leaves zeros; its adjoint reads the window."""
    cropping = next(_PADDINGS[base] for base in type(source).__mro__ if base in _PADDINGS)
    if cropping is not keras.layers.Cropping1D:
        return cropping(source.padding, data_format=source.data_format, dtype=source.dtype_policy, name=name)
    if source.data_format == "channels_first":
        return AdjointZeroPadding1D(source, name=name)
    return cropping(source.padding, dtype=source.dtype_policy, name=name)


@rule(*_CROPPINGS)
def cropping(source: Layer, *, name: str | None = None) -> Layer:
    """Cropping reads a window; its adjoint writes it among zeros."""
    padding = next(_CROPPINGS[base] for base in type(source).__mro__ if base in _CROPPINGS)
    data_format = getattr(source, "data_format", "channels_last")  # `Cropping1D` knows no other
    return padding(source.cropping, data_format=data_format, dtype=source.dtype_policy, name=name)


@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointZeroPadding1D(Tied):
    """The adjoint of a channels-first `ZeroPadding1D`, for which Keras has no cropping layer.

    Args:
        source: A `keras.layers.ZeroPadding1D`.

    Input shape: `(batch, channels, pad_before + size + pad_after)`.
    Output shape: `(batch, channels, size)`.

    Example:

    >>> padding = keras.layers.ZeroPadding1D((1, 2), data_format="channels_first")
    >>> AdjointZeroPadding1D(padding)(padding(np.ones((1, 2, 4)))).shape
    (1, 2, 4)
    """

    @property
    def expected(self) -> Expected:
        return Expected(3)

    def apply_adjoint(self, y: Tensor) -> Tensor:
        self.compute_output_shape(tuple(y.shape))  # raises for sizes below the padding's
        return window(y, [self.source.padding[0]], [ops.shape(y)[2] - sum(self.source.padding)], first_axis=2)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        *rest, size = input_shape
        added = sum(self.source.padding)
        if is_known(size) and size < added:
            raise SizeError(
                f"`{self.source.name}` gives no output of size {size}, as it adds {added}. Received: y.shape={input_shape}"
            )
        return (*rest, None if size is None else size - added)


@rule(keras.layers.Permute)
def permute(source: Layer, *, name: str | None = None) -> Layer:
    """A permutation's transpose is its inverse."""
    inverse = tuple(int(axis) + 1 for axis in np.argsort(source.dims))
    return keras.layers.Permute(inverse, dtype=source.dtype_policy, name=name)


@rule(
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
    StochasticDepth,
)
def identity(source: Layer, *, name: str | None = None) -> Layer:
    """What changes nothing at inference is its own adjoint."""
    # `Identity` cannot put a policy into its config, only the name of one.
    return keras.layers.Identity(dtype=source.dtype_policy.name, name=name)


@rule(keras.layers.Activation)
def activation(source: Layer, *, name: str | None = None) -> Layer:
    """The linear activation is the identity; no other has an adjoint."""
    if source.activation is not keras.activations.linear:
        raise NoRuleError(
            "An activation is not linear, so it has no adjoint. Leave it out of what you transpose, in a model by "
            "`keras_adjoint.adjoint(model, linear_part=True)`, or choose what stands in its place with `keras_adjoint.mirror`. "
            f"Received: activation={source.activation.__name__!r}, {describe(source)}"
        )
    return identity(source, name=name)


@rule(keras.layers.Reshape, keras.layers.Flatten)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointReshape(Tied):
    """The adjoint of `Reshape` and `Flatten`: back to the shape that came in.

    Args:
        source: A `keras.layers.Reshape` or `keras.layers.Flatten`.
        output_size: The shape to go back to, without the batch axis; by default what the source recorded. At most one
            of its sizes may be unknown, that is, `None`.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: The shape wanted in this call, or a tensor that has it, whose sizes may be known when it runs.

    Raises:
        SizeError: If the shape to go back to is unknown, or has another number of elements.

    Example:

    >>> inputs = keras.Input((4, 5, 3))
    >>> flatten = keras.layers.Flatten()
    >>> AdjointReshape(flatten)(flatten(inputs)).shape
    (None, 4, 5, 3)
    """

    options = ("output_size", "name")

    def __init__(self, source: Layer, *, output_size: Any = None, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        self.output_size = standardize_shape(output_size)

    @property
    def expected(self) -> Expected:
        if isinstance(self.source, keras.layers.Flatten):
            return Expected(2)
        return Expected.shape((None, *(None if size == -1 else size for size in self.source.target_shape)))

    def call(self, y: Tensor, output_size: Any = None) -> Tensor:
        y = accept(self, y)
        shape = self._shape(tuple(y.shape), output_size)
        batch = ops.shape(y)[0] if any(size is None for size in shape) else -1
        shape = tuple(-1 if size is None else size for size in shape)
        channels_first = isinstance(self.source, keras.layers.Flatten) and self.data_format == "channels_first"
        if not channels_first or len(shape) < 2:
            return ops.reshape(y, (batch, *shape))
        # A channels-first `Flatten` writes the channels last, so they come back from there.
        channels, *sizes = shape
        return move_axis(ops.reshape(y, (ops.shape(y)[0], *sizes, channels)), -1, 1)

    def compute_output_shape(self, input_shape: Shape, output_size: Any = None) -> Shape:
        return (input_shape[0], *self._shape(input_shape, output_size))

    def _shape(self, received: Shape, output_size: Any) -> Shape:
        wanted = standardize_shape(output_size)
        most = len(wanted or ()) if is_shaped_like(output_size) else 1  # a tensor knows its sizes when it runs
        wanted = self.output_size if wanted is None else wanted
        sizes = where_fixed(received[1:], lambda: [shape[1:] for shape in recorded_shapes(self)])
        elements = None if any(size is None for size in sizes) else math.prod(sizes)
        candidates = [wanted] if wanted is not None else [shape[1:] for shape in self.recorded_shapes()]
        fitting = list(dict.fromkeys(shape for shape in candidates if self._fits(shape, elements, most)))
        if len(fitting) == 1:
            return self._complete(fitting[0], elements)
        among = " or ".join(map(str, fitting or candidates)) or "none recorded"
        raise SizeError(
            f"The adjoint of `{self.source.name}` needs one shape to go back to, with at most one size unknown; here it is "
            f"{among}. Pass it as `output_size=(...)`, without the batch axis. Received: y.shape={received}"
        )

    @staticmethod
    def _fits(shape: Shape, elements: int | None, most_unknown: int) -> bool:
        known = [size for size in shape if isinstance(size, int)]
        unknown = sum(size is None for size in shape)
        if unknown > most_unknown or elements is None or len(known) + unknown < len(shape):
            return unknown <= most_unknown
        return elements % math.prod(known) == 0 if unknown else math.prod(known) == elements

    @staticmethod
    def _complete(shape: Shape, elements: int | None) -> Shape:
        if elements is None or sum(size is None for size in shape) != 1:
            return shape
        rest = elements // math.prod(size for size in shape if size is not None)
        return tuple(rest if size is None else size for size in shape)

    @property
    def needs_output_size(self) -> bool:
        """The shape of y does not determine the shape to go back to."""
        return True

    def output_size_like(self, x: keras.KerasTensor) -> Shape | None:
        """The `output_size` that makes the output as large as the symbolic tensor `x`; `None` if that is not known."""
        shape = tuple(x.shape[1:])
        return shape if shape.count(None) < 2 else None

    def size_for_graph(self, y: keras.KerasTensor) -> Shape | None:
        shape = self._shape(tuple(y.shape), None)
        return None if None in shape else shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output_size": self.output_size}


@rule(keras.layers.RepeatVector)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointRepeatVector(Tied):
    """The adjoint of `RepeatVector`: the copies are added up.

    Args:
        source: A `keras.layers.RepeatVector`.

    Input shape: `(batch, n, features)`.
    Output shape: `(batch, features)`.

    Example:

    >>> repeat = keras.layers.RepeatVector(3)
    >>> AdjointRepeatVector(repeat)(repeat(np.ones((1, 2)))).shape
    (1, 2)
    """

    @property
    def expected(self) -> Expected:
        return Expected(3, sizes={1: self.source.n})

    def apply_adjoint(self, y: Tensor) -> Tensor:
        return ops.sum(y, axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *input_shape[2:])
