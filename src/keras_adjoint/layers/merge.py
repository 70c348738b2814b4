"""The adjoints of layers that merge several tensors into one: y is distributed to the inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops
from keras.layers import Layer

from keras_adjoint.errors import SizeError
from keras_adjoint.keras_internals import CustomScaleLayer
from keras_adjoint.layers.inputs import Expected, accept, broadcast_shape, check_symbolic
from keras_adjoint.layers.registry import rule
from keras_adjoint.layers.sizes import standardize_shapes
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.geometry import is_known


def shapes_of_inputs(source: Layer) -> tuple[Shape, ...]:
    """The shapes, without the batch axis, of the tensors that a merging layer was first called with; () if unknown."""
    shapes = (source.get_build_config() or {}).get("input_shape") or ()
    return tuple(tuple(shape[1:]) for shape in shapes if isinstance(shape, (tuple, list)))


def sum_to(y: Tensor, shape: Shape) -> Tensor:
    """The transpose of broadcasting a tensor of `shape`, without its batch axis, to the shape of `y`.

    Keras aligns the batch axes first and the others from behind, so the axes that `shape` lacks follow the batch axis.
    """
    missing = len(y.shape) - 1 - len(shape)
    if missing:
        y = ops.sum(y, axis=tuple(range(1, missing + 1)))
    spread = tuple(axis for axis, size in enumerate(shape, 1) if is_known(size) and size == 1 and y.shape[axis] != 1)
    return ops.sum(y, axis=spread, keepdims=True) if spread else y


class AdjointMerge(Tied):
    """The adjoint of a layer that merges several tensors: one tensor comes, and one for each of the source's inputs goes.

    Args:
        source: A merging layer that has been called.
        output_size: Shapes of the source's inputs, without the batch axis; by default those that it was called with first.

    Call arguments:
        y: Tensor of the shape of the source's output.
        output_size: The shapes wanted in this call, or tensors that have them.

    Raises:
        SizeError: If the source has not been called and no shapes are given.
    """

    options = ("output_size", "name")

    def __init__(self, source: Layer, *, output_size: Any = None, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        self.output_size = standardize_shapes(output_size) or shapes_of_inputs(source)

    def distribute(self, y: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """The adjoint: one tensor per shape. To be written by the subclass."""
        raise NotImplementedError

    def merged(self, shapes: Sequence[Shape]) -> Shape:
        """What the source makes of inputs of these shapes, all without the batch axis. To be written by the subclass."""
        raise NotImplementedError

    def call(self, y: Tensor, output_size: Any = None) -> list[Tensor]:
        shapes = self.resolve(output_size)
        return self.distribute(accept(self, y, self.expected_of(shapes)), shapes)

    def expected_of(self, shapes: Sequence[Shape]) -> Expected:
        """The shape that y must have if the source's inputs have these."""
        return Expected.shape((None, *self.merged(shapes)))

    def resolve(self, output_size: Any = None) -> tuple[Shape, ...]:
        shapes = self.output_size if output_size is None else standardize_shapes(output_size) or ()
        if not shapes:
            raise SizeError(
                f"`{self.source.name}` has not been called, so the number of its inputs is unknown. Call it, or pass their "
                f"shapes without the batch axis as `output_size=[(...), ...]`. Received: source={self.source.name!r}"
            )
        return shapes

    @property
    def needs_output_size(self) -> bool:
        return True

    def output_size_like(self, *xs: keras.KerasTensor) -> tuple[Shape, ...] | None:
        shapes = tuple(tuple(x.shape[1:]) for x in xs)
        return None if any(None in shape for shape in shapes) else shapes

    def compute_output_spec(self, y: Tensor, output_size: Any = None) -> list[keras.KerasTensor]:
        check_symbolic(self, y, self.expected_of(self.resolve(output_size)))
        shapes = self.compute_output_shape(tuple(y.shape), output_size)
        return [keras.KerasTensor(shape, dtype=self.compute_dtype) for shape in shapes]

    def compute_output_shape(self, input_shape: Shape, output_size: Any = None) -> list[Shape]:
        return [(input_shape[0], *shape) for shape in self.resolve(output_size)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output_size": self.output_size}


# A weighted sum of its inputs: what each of them is multiplied by.
WEIGHTS: dict[type, Callable[[Any, int], tuple[float, ...]]] = {
    keras.layers.Add: lambda source, count: (1,) * count,
    keras.layers.Subtract: lambda source, count: (1, -1),
    keras.layers.Average: lambda source, count: (1 / count,) * count,
    CustomScaleLayer: lambda source, count: (1, source.scale),
}


def weights_of(source: Layer, count: int) -> tuple[float, ...]:
    """What a merging layer multiplies each of `count` inputs by."""
    weights = next(WEIGHTS[base] for base in type(source).__mro__ if base in WEIGHTS)(source, count)
    if len(weights) != count:
        raise SizeError(f"`{source.name}` takes {len(weights)} inputs. Received: output_size of {count} shapes")
    return weights


@rule(*WEIGHTS)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointSum(AdjointMerge):
    """The adjoint of a weighted sum, as in `Add`, `Subtract` and `Average`: every input gets y times its weight.

    An input that was broadcast collects the sum over what it was broadcast to.

    Args:
        source: A merging layer that has been called.
        output_size: See `AdjointMerge`.

    Input shape: That of the source's output.
    Output shape: A list, with the shape of each of the source's inputs.

    Example:

    >>> subtract = keras.layers.Subtract()
    >>> difference = subtract([np.ones((1, 2)), np.zeros((1, 2))])
    >>> [np.array(x).tolist() for x in AdjointSum(subtract)(difference)]
    [[[1.0, 1.0]], [[-1.0, -1.0]]]
    """

    def merged(self, shapes: Sequence[Shape]) -> Shape:
        weights_of(self.source, len(shapes))  # raises for another number of inputs
        return broadcast_shape(shapes)

    def distribute(self, y: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        weights = weights_of(self.source, len(shapes))
        return [sum_to(y if weight == 1 else y * weight, shape) for weight, shape in zip(weights, shapes, strict=True)]


@rule(keras.layers.Concatenate)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointConcatenate(AdjointMerge):
    """The adjoint of `Concatenate`: every input gets back its own part.

    Args:
        source: A `keras.layers.Concatenate` that has been called.
        output_size: See `AdjointMerge`.

    Input shape: That of the source's output.
    Output shape: A list, with the shape of each of the source's inputs.

    Example:

    >>> concatenate = keras.layers.Concatenate()
    >>> both = concatenate([np.ones((1, 2)), np.zeros((1, 3))])
    >>> [x.shape for x in AdjointConcatenate(concatenate)(both)]
    [(1, 2), (1, 3)]
    """

    def merged(self, shapes: Sequence[Shape]) -> Shape:
        rank, axis = len(shapes[0]) + 1, self.source.axis
        if any(len(shape) + 1 != rank for shape in shapes) or not -rank < axis < rank or not axis % rank:
            raise SizeError(
                f"`{self.source.name}` joins inputs of equal numbers of axes along axis {axis}, which they must have. "
                f"Received: output_size={tuple(shapes)}"
            )
        along = [shape[axis % rank - 1] for shape in shapes]
        others = broadcast_shape([(*shape[: axis % rank - 1], 1, *shape[axis % rank :]) for shape in shapes])
        total = sum(along) if all(map(is_known, along)) else None
        return (*others[: axis % rank - 1], total, *others[axis % rank :])

    def output_size_like(self, *xs: keras.KerasTensor) -> tuple[Shape, ...] | None:
        """The shapes of the inputs, as far as they are known; `None` if it is not known where one ends along the axis."""
        axis = self.source.axis % len(xs[0].shape)
        return None if any(x.shape[axis] is None for x in xs) else tuple(tuple(x.shape[1:]) for x in xs)

    def distribute(self, y: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        axis = self.source.axis % len(y.shape)
        parts, start = [], 0
        for shape in shapes:
            cut = slice(start, start + shape[axis - 1])
            parts.append(y[(slice(None),) * axis + (cut,)])
            start += shape[axis - 1]
        return parts
