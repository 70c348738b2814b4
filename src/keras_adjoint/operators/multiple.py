"""`Multiple`: a variable times a tensor as a layer, so that a model of an operator `A * variable` holds that variable."""

from typing import Any
from weakref import WeakValueDictionary

import keras
from keras import ops

from keras_adjoint.layers.inputs import Expected
from keras_adjoint.layers.norm import AdjointScaling
from keras_adjoint.layers.registry import rule
from keras_adjoint.ops import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_adjoint")
class Multiple(keras.layers.Layer):
    """x ↦ c x, for a scalar variable c, which is a weight of this layer.

    Args:
        variable: A scalar `keras.Variable`. By default a new one, whose value a file has.
        trainable: Whether a new one is trained.

    Input shape: Any.
    Output shape: The same.
    """

    def __init__(self, variable: keras.Variable | None = None, *, trainable: bool = True, **kwargs: Any) -> None:
        super().__init__(trainable=trainable if variable is None else variable.trainable, **kwargs)
        self.variable = self.add_weight((), initializer="ones", name="factor") if variable is None else variable
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        return x * ops.cast(self.variable, x.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = keras.layers.Layer.get_config(self)  # Keras asks layers with arguments for one
        return config


# Of calls with the same variable, one layer, so that a model which is loaded has one variable as well.
_LAYERS: WeakValueDictionary[tuple[int, str], Multiple] = WeakValueDictionary()


def multiple_of(variable: keras.Variable, dtype: str) -> Multiple:
    """The layer that multiplies by a variable, which keeps that alive and so its `id` from being another one's."""
    found = _LAYERS.get((id(variable), dtype))
    if found is None:
        found = _LAYERS[id(variable), dtype] = Multiple(variable, dtype=dtype)
    return found


@rule(Multiple)
@keras.saving.register_keras_serializable(package="keras_adjoint")
class AdjointMultiple(AdjointScaling):
    """The adjoint of a `Multiple`, which multiplies by the same variable."""

    @property
    def expected(self) -> Expected:
        return Expected(None)

    def scale_and_shift(self, rank: int) -> tuple[Tensor, Tensor]:
        factor = ops.convert_to_tensor(self.source.variable)
        return factor, ops.zeros_like(factor)
