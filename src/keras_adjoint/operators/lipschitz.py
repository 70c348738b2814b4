"""`Lipschitz`: a layer that lengthens no difference by more than a constant, while training and after."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.adjoint import has_activation
from keras_adjoint.layers.registry import describe
from keras_adjoint.operators.activations import constant_of
from keras_adjoint.ops import Shape, Tensor

if TYPE_CHECKING:
    from keras_adjoint.operators.operator import Operator

EVERY_SIZE = 2**20  # as large as this, a convolution's bound is that at every size


@keras.saving.register_keras_serializable(package="keras_adjoint")
class Lipschitz(keras.layers.Wrapper):
    """A linear layer, with its activation, whose kernel is scaled down where its Lipschitz constant would be too large.

    The factor min(1, constant / (bound · that of the activation)) is computed from the kernel in every call, by `A.bound()` at
    the layer's own size, and differentiated through. Since φ(s·A x + b) is the layer at s·x, nothing is assigned, and the
    layer inside keeps its own kernel.

    Args:
        layer: A linear layer, possibly with a bias and an activation that has a Lipschitz constant.
        constant: The largest ‖f(x) − f(z)‖ / ‖x − z‖.

    Call arguments:
        x: What the layer takes.

    Input shape: That of the layer.
    Output shape: That of the layer.

    Raises:
        NoRuleError: If the layer is not linear up to its activation, or no constant is known for that.
        ValueError: If the constant is not a positive number.

    Example:

    >>> layer = ka.Lipschitz(keras.layers.Conv2D(8, 3, padding="same"), constant=0.5)
    >>> layer(np.ones((1, 9, 9, 3))).shape
    (1, 9, 9, 8)
    """

    def __init__(self, layer: keras.layers.Layer, constant: float = 1.0, **kwargs: Any) -> None:
        is_number = isinstance(constant, (int, float, np.integer, np.floating)) and not isinstance(constant, bool)
        if not is_number or not 0 < constant < float("inf"):
            raise ValueError(f"The Lipschitz constant is a positive number. Received: constant={constant!r}")
        super().__init__(layer, **kwargs)
        self.constant = float(constant)
        self.supports_masking = layer.supports_masking
        self.activation_constant = 1.0
        if has_activation(layer):
            found = constant_of(layer.activation)
            if found is None:
                raise NoRuleError(
                    f"No Lipschitz constant is known for the activation of `{layer.name}`. Use another one, or none. "
                    f"Received: activation={getattr(layer.activation, '__name__', layer.activation)!r}, {describe(layer)}"
                )
            self.activation_constant = found
        self.__dict__["operators"] = {}  # past Keras, which would track what is in it

    def factor(self, shape: Shape) -> Tensor:
        """What the kernel is multiplied by for inputs of a shape, batch axis included: a scalar tensor."""
        bound = self.operator_at(shape).bound()
        return ops.minimum(1.0, self.constant / (ops.maximum(bound, 1e-30) * self.activation_constant))

    def operator_at(self, shape: Shape) -> "Operator":
        """The layer inside as an operator, at every size at once where a size is unknown."""
        from keras_adjoint.operators.layer_operator import layer_operator  # imported lazily

        taken = tuple(EVERY_SIZE if size is None else int(size) for size in shape[1:])
        operators: dict[Shape, Operator] = self.operators
        if taken not in operators:
            operators[taken] = layer_operator(self.layer, taken, linear_part=True)
        return operators[taken]

    def call(self, x: Tensor) -> Tensor:
        factor = self.factor(tuple(x.shape))
        return self.layer(x * ops.cast(factor, x.dtype))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape: Shape = self.layer.compute_output_shape(input_shape)
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "constant": self.constant}
