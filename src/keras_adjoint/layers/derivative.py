"""The gradient of a call at recorded tensors: y ↦ Jᵀ y, with the Jacobian J there of whatever a layer or operation computes.

The backend differentiates. What the layer is called with, in whatever nesting, and which of it is constant, says a pattern.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
from keras import ops
from keras.layers import Layer

from keras_adjoint.keras_internals import masked
from keras_adjoint.layers.call_pattern import CallPattern, flat, one_or_list
from keras_adjoint.layers.tied import Tied
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current

Tensors: TypeAlias = list[Tensor]


def transposed_derivative(function: Callable[[Tensors], Tensors], xs: Tensors, ys: Tensors) -> Tensors:
    """Jᵀ ys, with the Jacobian J of `function` at `xs`."""
    return list(current().vjp(function, xs, ys))


def derivative(function: Callable[[Tensors], Tensors], xs: Tensors, directions: Tensors) -> Tensors:
    """J `directions`: as Jᵀ is linear, the transpose of its own derivative is J, wherever that is taken."""
    anywhere = [ops.zeros_like(y) for y in function(xs)]
    return list(current().vjp(lambda ys: transposed_derivative(function, xs, ys), anywhere, directions))


@keras.saving.register_keras_serializable(package="keras_adjoint")
class CallGradient(Tied):
    """The gradient of a call at recorded tensors: y ↦ Jᵀ y, with the Jacobian J of the layer at what it was called with.

    For fixed tensors it is linear. Integers and booleans have no derivative, neither as inputs nor as outputs.

    Args:
        source: The layer.
        pattern: How it is called, masks included.
        transposed: Whether to apply J itself, which is the adjoint of the above.
        tied: See `Tied`.

    Call arguments:
        y: The cotangent of the layer's output; of several outputs a list, without those of integers.
        recorded: A list of the tensors that the layer was called with, in the order of the pattern.
        recorded_mask: A list of their masks, `None` where there is none. The layer finds them with the tensors.

    Input shape: That of the layer's output.
    Output shape: That of its inputs, without those of integers; of several a list.

    Example:

    >>> from keras_adjoint.layers.call_pattern import single_input
    >>> norm = keras.layers.UnitNormalization()
    >>> gradient = CallGradient(norm, pattern=single_input((None, 2), "float32"))
    >>> x = np.array([[0.6, 0.8]])
    >>> bool(np.allclose(keras.ops.convert_to_numpy(gradient(x, [x])), 0, atol=1e-6))
    True
    """

    def __init__(self, source: Layer, *, pattern: CallPattern, transposed: bool = False, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        self.pattern = pattern
        self.transposed = transposed

    @property
    def exact(self) -> bool:
        return False

    @property
    def places(self) -> list[int]:
        """The numbers of the recorded tensors that have a derivative."""
        return [number for number, x in enumerate(self.pattern.inputs) if "float" in x.dtype]

    def transpose(self, source: Layer, **options: Any) -> "CallGradient":
        """The adjoint of this layer, for a source that computes the same."""
        options = {"dtype": self.dtype_policy, **options}
        return CallGradient(source, pattern=self.pattern, transposed=not self.transposed, **options)

    def call(self, y: Any, recorded: Any, recorded_mask: Any = None) -> Any:
        xs = flat(recorded)
        masks = [None for _ in xs] if recorded_mask is None else flat(recorded_mask)
        at = [ops.cast(xs[place], self.compute_dtype) for place in self.places]
        given = [ops.cast(each, self.compute_dtype) for each in flat(y)]

        def function(floats: Tensors) -> Tensors:
            filled = list(xs)
            for place, x in zip(self.places, floats, strict=True):
                filled[place] = masked(x, masks[place])
            outputs = [ops.convert_to_tensor(each) for each in flat(self.pattern.call(self.source, filled))]
            return [ops.cast(each, self.compute_dtype) for each in outputs if is_float(each)]

        return one_or_list((derivative if self.transposed else transposed_derivative)(function, at, given))

    def compute_output_spec(self, y: Any, recorded: Any, recorded_mask: Any = None) -> Any:
        xs = flat(recorded)
        like = [xs[place] for place in self.places]
        if self.transposed:
            like = [each for each in flat(self.pattern.spec(self.source, xs)) if is_float(each)]
        return one_or_list([keras.KerasTensor(each.shape, dtype=self.compute_dtype) for each in like])

    def get_config(self) -> dict[str, Any]:
        own = {"pattern": self.pattern.get_config(), "transposed": self.transposed}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CallGradient":
        return super().from_config({**config, "pattern": CallPattern.from_config(config["pattern"])})


def is_float(tensor: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(tensor.dtype)
