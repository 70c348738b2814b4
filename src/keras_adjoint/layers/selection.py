"""The adjoints of layers that select values: the maxima and minima of several tensors, and adaptive max pooling."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from keras.layers import Layer

from keras_adjoint.errors import SizeError
from keras_adjoint.layers.call_pattern import flat
from keras_adjoint.layers.derivative import derivative, transposed_derivative
from keras_adjoint.layers.global_pooling import BroadcastGlobalPooling
from keras_adjoint.layers.inputs import Expected, accept, check_real, check_symbolic, name_of_dtype, shape_text
from keras_adjoint.layers.registry import nearest_class, rule
from keras_adjoint.layers.tied import Tied, call_at_inference
from keras_adjoint.ops import Shape, Tensor

EXTREMA: tuple[type, ...] = (keras.layers.Maximum, keras.layers.Minimum)
ADAPTIVE_MAX_POOLS: tuple[type, ...] = tuple(
    getattr(keras.layers, f"AdaptiveMaxPooling{rank}D")
    for rank in (1, 2, 3)
    if hasattr(keras.layers, f"AdaptiveMaxPooling{rank}D")
)  # older versions of Keras lack them


@rule(*EXTREMA, *ADAPTIVE_MAX_POOLS)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointSelection(Tied):
    """The adjoint of a layer that selects values, as the linear map that it is for given inputs.

    Which value is selected, the switches, depends on the inputs; once they are fixed, selecting is linear, and its transpose
    puts every value back where it was selected. Where several values are selected equally well, it is the backend's gradient:
    of `Maximum` and `Minimum` JAX and PyTorch give half to either of two tensors, and TensorFlow gives all to the first.

    Args:
        source: A `Maximum`, `Minimum` or `AdaptiveMaxPooling` layer.

    Call arguments:
        y: Tensor of the shape of the source's output.
        switches: What the source was called with: a tensor, or a list of them.

    Input shape: That of the source's output.
    Output shape: That of `switches`, a list where they are one.

    Raises:
        SizeError: If the source does not make tensors like y of `switches`.

    Example:

    >>> maximum = keras.layers.Maximum()
    >>> a, b = np.array([[1.0, 4.0]]), np.array([[3.0, 2.0]])
    >>> larger = maximum([a, b])
    >>> of_a, of_b = AdjointSelection(maximum)(np.array([[10.0, 20.0]]), switches=[a, b])
    >>> np.array(of_a).tolist(), np.array(of_b).tolist()
    ([[0.0, 20.0]], [[10.0, 0.0]])
    """

    needs_switches = True

    @property
    def merges(self) -> bool:
        """Whether the source takes several tensors."""
        return nearest_class(self.source, EXTREMA) is not None

    def call(self, y: Tensor, switches: Any) -> Any:
        y = accept(self, y, self.expected_for(y, switches))
        return self.packed(transposed_derivative(self.select, self.numbers(switches), [y]))

    def apply_forward(self, x: Any, switches: Any) -> Tensor:
        """A x: what the switches select from `x`."""
        (found,) = derivative(self.select, self.numbers(switches), self.numbers(x))
        return found

    def select(self, xs: list[Tensor]) -> list[Tensor]:
        return [call_at_inference(self.source, self.packed(xs))]

    def numbers(self, tensors: Any) -> list[Tensor]:
        return [ops.cast(each, self.compute_dtype) for each in flat(tensors)]

    def packed(self, tensors: Sequence[Any]) -> Any:
        """Tensors as the source takes them."""
        return list(tensors) if self.merges else tensors[0]

    def expected_for(self, y: Any, switches: Any) -> Expected:
        """The shape that y must have for some switches."""
        given = flat(switches)
        shape = None
        if all(hasattr(each, "shape") for each in given) and self.merges == isinstance(switches, (list, tuple)):
            for each in given:
                check_real(self, name_of_dtype(each.dtype))
            shape = self.selected_shape([tuple(each.shape) for each in given])
        if shape is None or not hasattr(y, "shape") or not Expected.shape(shape).fits(y.shape):
            what = "lists of tensors like" if self.merges else "tensors like"
            raise SizeError(
                f"`{self.source.name}` does not make tensors like `y` of {what} `switches`. Pass what the source was called "
                f"with. Received: y.shape={shape_text(y)}, switches.shape={', '.join(map(shape_text, given))}"
            )
        return Expected.shape(shape)

    def selected_shape(self, shapes: list[Shape]) -> Shape | None:
        """The shape of what the source makes of tensors of these shapes; `None` if it takes no such tensors."""
        if not self.merges:
            fits = len(shapes[0]) == len(self.source.output_size) + 2
            return tuple(self.source.compute_output_shape(shapes[0])) if fits else None
        try:
            return tuple(self.source.compute_output_shape(shapes)) if len(shapes) > 1 else None
        except ValueError:
            return None

    def compute_output_spec(self, y: Any, switches: Any) -> Any:
        check_symbolic(self, y, self.expected_for(y, switches))
        return self.packed([keras.KerasTensor(each.shape, dtype=self.compute_dtype) for each in flat(switches)])

    def compute_output_shape(self, y_shape: Shape, switches_shape: Any) -> Any:
        return switches_shape


@keras.saving.register_keras_serializable(package="keras_adjoint")
class SpreadAdaptivePooling(BroadcastGlobalPooling):
    """Every value over the part of the input that its window is about: position p of n takes value ⌊p m / n⌋ of m.

    Where n is a multiple of m, pooling the result gives back what was spread. It is no adjoint.

    Args:
        source: An `AdaptiveMaxPooling` layer.
        output_size: See `BroadcastGlobalPooling`.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: See `BroadcastGlobalPooling`.
    """

    @property
    def spatial_axes(self) -> int:
        return len(self.source.output_size)

    @property
    def expected(self) -> Expected:
        sizes = dict(enumerate(self.source.output_size, self.first_axis))
        return Expected(self.spatial_axes + 2, sizes=sizes)

    def call(self, y: Tensor, output_size: Any = None) -> Tensor:
        y = accept(self, y)
        for axis, size in enumerate(self.resolve(output_size), self.first_axis):
            y = ops.take(y, ops.arange(size, dtype="int32") * y.shape[axis] // size, axis=axis)
        return y


def averaging_like(pool: Layer, x: keras.KerasTensor) -> Layer:
    """The adaptive average pooling with the windows of an adaptive max pooling, as it is called on `x`."""
    averaging_class = getattr(keras.layers, f"AdaptiveAveragePooling{len(pool.output_size)}D")
    averaging: Layer = averaging_class(pool.output_size, data_format=pool.data_format, dtype=pool.dtype_policy)
    averaging(keras.Input(batch_shape=x.shape, dtype=x.dtype))
    return averaging


def is_selection(layer: Layer) -> bool:
    """Whether a layer selects values."""
    return nearest_class(layer, (*EXTREMA, *ADAPTIVE_MAX_POOLS)) is not None
