"""`Lipschitz`: a layer that lengthens no difference by more than a constant, while training and after."""

from typing import Any

import keras
from keras import ops

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.adjoint import has_activation
from keras_adjoint.layers.arguments import depends_on_training
from keras_adjoint.layers.options import is_real_number
from keras_adjoint.layers.registry import describe
from keras_adjoint.layers.sizes import recorded_shapes
from keras_adjoint.layers.wrapped import activation_of
from keras_adjoint.operators.activations import constant_of
from keras_adjoint.operators.measured import Measured
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.geometry import is_known


@keras.saving.register_keras_serializable(package="keras_adjoint")
class Lipschitz(Measured):
    """A linear layer, with its activation, whose kernel is scaled down where its Lipschitz constant would be too large.

    The factor min(1, constant / (bound · that of the activation)) is computed from the kernel in every call, by `A.bound()` at
    the layer's own size, and differentiated through. Since φ(s·A x + b) is the layer at s·x, nothing is assigned, and the
    layer inside keeps its own kernel. `keras_adjoint.untie` writes a stock layer with the scaled one.

    Args:
        layer: A linear layer, possibly with a bias and an activation that has a Lipschitz constant.
        constant: The largest ‖f(x) − f(z)‖ / ‖x − z‖.

    Call arguments:
        x: What the layer takes. Along axes whose size it was built or called without, the factor is that for every size.

    Input shape: That of the layer.
    Output shape: That of the layer.

    Raises:
        NoRuleError: If the layer is not linear up to its activation, computes something else in training, or no constant is
            known for the activation.
        ValueError: If the constant is not a positive number.

    Example:

    >>> layer = ka.Lipschitz(keras.layers.Conv2D(8, 3, padding="same"), constant=0.5)
    >>> layer(np.ones((1, 9, 9, 3))).shape
    (1, 9, 9, 8)
    """

    scales = True

    def __init__(self, layer: keras.layers.Layer, constant: float = 1.0, **kwargs: Any) -> None:
        if not is_real_number(constant) or not 0 < constant < float("inf"):
            raise ValueError(f"The Lipschitz constant is a positive number. Received: constant={constant!r}")
        super().__init__(layer, **kwargs)
        if depends_on_training(layer):
            raise NoRuleError(
                f"`{layer.name}` computes something else in training, and the kernel does not bound that. Leave it "
                f"outside, and wrap the linear layers alone. Received: {describe(layer)}"
            )
        self.constant = float(constant)
        self.activation_constant = 1.0
        if has_activation(layer):
            activation = activation_of(layer)
            found = constant_of(activation)
            if found is None:
                raise NoRuleError(
                    f"No Lipschitz constant is known for the activation of `{layer.name}`. Use another one, or none. "
                    f"Received: activation={getattr(activation, '__name__', activation)!r}, {describe(layer)}"
                )
            self.activation_constant = found

    def factor(self, shape: Shape) -> Tensor:
        """What the kernel is multiplied by for inputs of a shape, batch axis included: a scalar tensor."""
        bound = self.operator_at((None, *self.sizes_at(shape))).bound()
        return ops.minimum(1.0, self.constant / (ops.maximum(bound, 1e-30) * self.activation_constant))

    def sizes_at(self, shape: Shape) -> Shape:
        """The sizes, without the batch axis, that the factor for inputs of a shape goes by; `None` for every size.

        Where a model leaves a size open, the factor is the same for all of them, however the model is called.
        """
        recorded = [known for known in recorded_shapes(self) if len(known) == len(shape)]
        sizes: list[int | None] = []
        for axis in range(1, len(shape)):
            own = {known[axis] for known in recorded}
            # Tracers may give a size as something else than an integer, also where it is fixed.
            here = shape[axis] if is_known(shape[axis]) else next(iter(own)) if len(own) == 1 else None
            sizes.append(None if None in own else here)
        return tuple(sizes)

    def call(self, x: Tensor) -> Tensor:
        factor = self.factor(tuple(x.shape))
        return self.layer(ops.cast(x, self.compute_dtype) * ops.cast(factor, self.compute_dtype))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "constant": self.constant}
