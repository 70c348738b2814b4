"""The adjoint of max pooling: maxima go back to where they came from."""

import math

import keras
from keras import ops

from keras_adjoint.errors import SizeError
from keras_adjoint.layers.inputs import Expected, accept, check_real, check_symbolic, name_of_dtype, shape_text
from keras_adjoint.layers.pooling import Pooling
from keras_adjoint.layers.registry import rule
from keras_adjoint.layers.sizes import spatial
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.axes import move_axis
from keras_adjoint.ops.geometry import Axis, is_known
from keras_adjoint.ops.maxima import first_maximum, is_empty, pick, put_back


class Switches(Pooling):
    """What the adjoints of max pooling have in common: y, and the tensor whose maxima are the switches."""

    needs_switches = True

    def pooled_sizes(self, sizes: Shape) -> Shape:
        """The spatial sizes of y for switches of spatial sizes `sizes`. Subclasses implement it."""
        raise NotImplementedError

    def accept_both(self, y: Tensor, switches: Tensor) -> tuple[Tensor, Tensor]:
        """y in the compute dtype, and switches in a dtype that has a smallest number, after a check of both."""
        self.check_both(y, switches)
        return self.as_computed(y, switches)

    def as_computed(self, y: Tensor, switches: Tensor) -> tuple[Tensor, Tensor]:
        """Both in the dtypes of `accept_both`, unchecked."""
        dtype = name_of_dtype(switches.dtype)
        return accept(self, y, Expected()), ops.cast(switches, WIDER[dtype]) if dtype in WIDER else switches

    def check_both(self, y: Tensor, switches: Tensor) -> None:
        """Refuse switches that the source does not pool to tensors like y."""
        rank = self.source.input_spec.ndim
        sizes = None
        if hasattr(switches, "shape") and hasattr(y, "shape") and len(switches.shape) == rank:
            check_real(self, name_of_dtype(switches.dtype))
            pooled = self.pooled_sizes(spatial(tuple(switches.shape), self.data_format))
            sizes = self.full_shape(tuple(switches.shape), pooled)
        if sizes is None or not Expected.shape(sizes).fits(y.shape):
            raise SizeError(
                f"`{self.source.name}` does not pool inputs like `switches` to outputs like `y`. Pass the tensor that the "
                f"source pooled. Received: y.shape={shape_text(y)}, switches.shape={shape_text(switches)}"
            )

    def compute_output_spec(self, y: Tensor, switches: Tensor) -> keras.KerasTensor:
        self.check_both(y, switches)
        check_symbolic(self, y, Expected())
        return keras.KerasTensor(switches.shape, dtype=self.compute_dtype)

    def compute_output_shape(self, y_shape: Shape, switches_shape: Shape) -> Shape:
        return switches_shape


# Types of switches for which the backends have no comparison, or no number below all others, and what they become.
WIDER = {"bool": "int32", "int8": "int32", "int16": "int32", "uint8": "int32", "uint16": "int32"}


@rule(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointMaxPooling(Switches):
    """The adjoint of max pooling, as the linear map that it is for a given input (Zeiler et al. 2011).

    Max pooling picks one position in every window. Which one, the switches, depends on the input; once they are fixed,
    picking is linear, and its transpose puts every value back where the pick was made, adding up where windows overlap.
    Among equal maxima the first one in row-major order is the switch.

    Args:
        source: A max pooling layer.

    Call arguments:
        y: Tensor of the shape of the source's output.
        switches: The tensor that the source pooled; its maxima are the switches, and its size is the output's.

    Input shape: `(batch, *outputs, channels)`, or with the channels first.
    Output shape: That of `switches`.

    Example:

    >>> pool = keras.layers.MaxPooling1D(2)
    >>> x = np.array([[[1.0], [3.0], [5.0], [4.0]]])
    >>> np.array(AdjointMaxPooling(pool)(pool(x), switches=x))[0, :, 0].tolist()
    [0.0, 3.0, 5.0, 0.0]
    """

    def pooled_sizes(self, sizes: Shape) -> Shape:
        return tuple(window.outputs(s) if is_known(s) else None for window, s in zip(self.windows, sizes, strict=True))

    def call(self, y: Tensor, switches: Tensor) -> Tensor:
        y, switches = self.accept_both(y, switches)
        return put_back(y, switches, self._axes(switches), self.first_axis)

    def apply_forward(self, x: Tensor, switches: Tensor) -> Tensor:
        """A x: what the switches pick from `x`."""
        return pick(x, switches, self._axes(switches), self.first_axis)

    def _axes(self, x: Tensor) -> list[Axis]:
        sizes = spatial(ops.shape(x), self.data_format)
        return [window.at(size) for window, size in zip(self.windows, sizes, strict=True)]


@rule(keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D, keras.layers.GlobalMaxPooling3D)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointGlobalMaxPooling(Switches):
    """The adjoint of global max pooling: every maximum goes back to where it came from, and nothing to anywhere else.

    Among equal maxima the first one in row-major order is that place.

    Args:
        source: A global max pooling layer.

    Call arguments:
        y: Tensor of the shape of the source's output.
        switches: The tensor that the source pooled.

    Input shape: `(batch, channels)`, or with axes of size 1 if the source keeps them.
    Output shape: That of `switches`.

    Example:

    >>> pool = keras.layers.GlobalMaxPooling1D()
    >>> x = np.array([[[1.0], [3.0], [2.0]]])
    >>> np.array(AdjointGlobalMaxPooling(pool)(pool(x), switches=x))[0, :, 0].tolist()
    [0.0, 3.0, 0.0]
    """

    def pooled_sizes(self, sizes: Shape) -> Shape:
        return (1,) * len(sizes) if self.source.keepdims else ()

    def call(self, y: Tensor, switches: Tensor) -> Tensor:
        y, switches = self.accept_both(y, switches)
        selected = self._selected(switches)
        return ops.reshape(y, self._kept(selected)) * ops.cast(selected, y.dtype)

    def apply_forward(self, x: Tensor, switches: Tensor) -> Tensor:
        """A x: what the switches pick from `x`."""
        picked = ops.sum(x * ops.cast(self._selected(switches), x.dtype), axis=self._axes(x), keepdims=True)
        return picked if self.source.keepdims else ops.squeeze(picked, self._axes(x))

    def _axes(self, x: Tensor) -> tuple[int, ...]:
        rank = len(x.shape) - 2
        return tuple(range(self.first_axis, self.first_axis + rank))

    def _kept(self, x: Tensor) -> list[int]:
        return [1 if axis in self._axes(x) else size for axis, size in enumerate(ops.shape(x))]

    def _selected(self, switches: Tensor) -> Tensor:
        if is_empty(switches):
            return ops.zeros_like(switches, "bool")
        last_axis = len(switches.shape) - 1  # not -1, which PyTorch's exporter to ONNX writes into the file
        last = move_axis(switches, last_axis, 1) if self.first_axis == 1 else switches
        shape = ops.shape(last)
        flat = ops.reshape(last, (*shape[:2], math.prod(shape[2:])))  # not -1, which an empty batch does not determine
        first = ops.reshape(first_maximum(flat), ops.shape(last))
        return move_axis(first, 1, last_axis) if self.first_axis == 1 else first
