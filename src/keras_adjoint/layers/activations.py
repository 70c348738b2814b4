"""The gradient of an activation at a recorded point: y ↦ Jᵀ y, with the Jacobian J of any activation there.

The backend differentiates the activation itself. Of a few activations the output tells the derivative, so it is recorded
in the place of the input, and nothing is computed twice.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_adjoint.keras_internals import activation_operations, nn_operations, numpy_operations
from keras_adjoint.layers.adjoint import linear_adjoint
from keras_adjoint.layers.derivative import derivative, transposed_derivative
from keras_adjoint.layers.registry import nearest_class, rule
from keras_adjoint.layers.tied import Tied, call_at_inference, stand_in
from keras_adjoint.layers.wrapped import inside
from keras_adjoint.ops import Shape, Tensor

Activation: TypeAlias = Callable[[Tensor], Tensor]


def _softmax(a: Tensor, y: Tensor) -> Tensor:
    return a * (y - ops.sum(a * y, axis=-1, keepdims=True))


# (output a, cotangent y) ↦ Jᵀ y, where the output tells the derivative as precisely as the input does.
FROM_OUTPUT: dict[Activation, Callable[[Tensor, Tensor], Tensor]] = {
    keras.activations.relu: lambda a, y: ops.where(a > 0, y, ops.zeros_like(y)),
    keras.activations.sigmoid: lambda a, y: y * a * (1 - a),
    keras.activations.hard_sigmoid: lambda a, y: ops.where(ops.logical_and(a > 0, a < 1), y / 6, ops.zeros_like(y)),
    keras.activations.tanh: lambda a, y: y * (1 - a * a),
    keras.activations.exponential: lambda a, y: y * a,
    keras.activations.softmax: _softmax,
}

# The same functions under other names.
ALIASES: dict[Activation, Activation] = {
    ops.relu: keras.activations.relu,
    ops.relu6: keras.activations.relu6,
    ops.sigmoid: keras.activations.sigmoid,
    ops.hard_sigmoid: keras.activations.hard_sigmoid,
    ops.softmax: keras.activations.softmax,
    ops.exp: keras.activations.exponential,
    ops.tanh: keras.activations.tanh,
}

# Operations of a graph, which compute an activation if their options are those given here.
OPERATIONS: dict[type, tuple[Activation, dict[str, Any]]] = {
    activation_operations.ReLU: (keras.activations.relu, {"negative_slope": 0, "max_value": None, "threshold": 0}),
    nn_operations.Relu: (keras.activations.relu, {}),
    nn_operations.Relu6: (keras.activations.relu6, {}),
    nn_operations.Sigmoid: (keras.activations.sigmoid, {}),
    nn_operations.HardSigmoid: (keras.activations.hard_sigmoid, {}),
    nn_operations.Softmax: (keras.activations.softmax, {"axis": -1}),
    numpy_operations.Exp: (keras.activations.exponential, {}),
    numpy_operations.Tanh: (keras.activations.tanh, {}),
}


def function_of(activation: Any) -> Any:
    """The function of `keras.activations` that a layer, operation or function is at its end; as it came if it is none."""
    if isinstance(activation, keras.layers.Layer):
        layer_class = nearest_class(activation, (keras.layers.Activation, keras.layers.ReLU))
        if layer_class is keras.layers.Activation:
            return function_of(activation.activation)
        if layer_class is None or activation.negative_slope or activation.threshold:
            return activation
        functions = {None: keras.activations.relu, 6: keras.activations.relu6}
        return functions.get(activation.max_value, activation)
    if isinstance(activation, keras.Operation):
        function, options = OPERATIONS.get(type(activation), (activation, {}))
        return function if all(getattr(activation, name) == value for name, value in options.items()) else activation
    return next((known for alias, known in ALIASES.items() if alias is activation), activation)


def from_output(activation: Any) -> Callable[[Tensor, Tensor], Tensor] | None:
    """(output a, cotangent y) ↦ Jᵀ y for an activation whose output tells its derivative, else `None`."""
    function = function_of(activation)
    return next((derivative for known, derivative in FROM_OUTPUT.items() if known is function), None)


def rectifies(activation: Any) -> bool:
    """Whether an activation is a rectifier: its derivatives are 0 and 1 alone, and its values are not negative."""
    function = function_of(activation)
    if isinstance(function, (keras.layers.ReLU, activation_operations.ReLU)):
        return bool(function.negative_slope == 0 and function.threshold >= 0)
    return any(function is rectifier for rectifier in (keras.activations.relu, keras.activations.relu6))


@keras.saving.register_keras_serializable(package="keras_adjoint")
class ActivationGradient(Tied):
    """The gradient of an activation at a recorded point: y ↦ Jᵀ y, with the Jacobian J of the activation there.

    For a fixed point it is linear. "Guided" is defined for rectifiers, whose J is a diagonal of zeros and ones: negative
    cotangents are stopped as well, y ↦ J max(y, 0) (Springenberg et al. 2015, equation 5).

    Args:
        source: The layer of the activation: a `keras.layers.Activation`, or any other layer that maps one tensor to one.
        guided: Whether negative cotangents are stopped as well.
        transposed: Whether to apply J itself, which is the adjoint of the above.
        tied: See `Tied`.

    Call arguments:
        y: The cotangent of the activation's output.
        recorded: The activation's input; where `reads_output` is true, its output.
        recorded_mask: The mask that the activation was called with, if there was one.

    Input shape: That of the activation's output.
    Output shape: That of its input.

    Example:

    >>> relu = keras.layers.Activation("relu")
    >>> y, recorded = np.array([[1.0, -2.0, 3.0]]), np.array([[0.5, 0.5, 0.0]])
    >>> np.array(ActivationGradient(relu)(y, recorded)).tolist()
    [[1.0, -2.0, 0.0]]
    >>> np.array(ActivationGradient(relu, guided=True)(y, recorded)).tolist()
    [[1.0, 0.0, 0.0]]
    """

    def __init__(
        self, source: keras.layers.Layer, *, guided: bool = False, transposed: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(source, **kwargs)
        self.guided, self.transposed = guided, transposed
        self.takes_mask = "mask" in inspect.signature(source.call).parameters

    @property
    def exact(self) -> bool:
        return False

    @property
    def reads_output(self) -> bool:
        """Whether the derivative is computed from the activation's output."""
        return from_output(self.source) is not None

    def transpose(self, source: keras.layers.Layer, **options: Any) -> "ActivationGradient":
        """The adjoint of this layer, for a source that computes the same."""
        return ActivationGradient(source, transposed=not self.transposed, dtype=self.dtype_policy, **options)

    def call(self, y: Tensor, recorded: Tensor, recorded_mask: Tensor | None = None) -> Tensor:
        y = ops.relu(y) if self.guided else y
        symmetric = from_output(self.source)
        if symmetric is not None:
            return symmetric(recorded, y)

        def function(xs: list[Tensor]) -> list[Tensor]:
            return [ops.cast(self._activate(xs[0], recorded_mask), y.dtype)]

        x = ops.cast(recorded, self.compute_dtype)  # integers have no derivative
        return (derivative if self.transposed else transposed_derivative)(function, [x], [y])[0]

    def _activate(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.source(x, mask=mask) if self.takes_mask else call_at_inference(self.source, x)

    def compute_output_spec(
        self, y: keras.KerasTensor, recorded: keras.KerasTensor, recorded_mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        shape = self.source.compute_output_spec(recorded).shape if self.transposed else recorded.shape
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def compute_output_shape(self, y_shape: Shape, recorded_shape: Shape, *masks_shape: Shape) -> Shape:
        recorded = keras.KerasTensor(recorded_shape, self.compute_dtype)
        return tuple(self.compute_output_spec(recorded, recorded).shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "guided": self.guided, "transposed": self.transposed}


@keras.saving.register_keras_serializable(package="keras_adjoint")
class PreActivation(Tied):
    """What a layer computes before its activation, its bias included, which the layer itself does not give: x ↦ A x + b.

    Args:
        source: A built layer that ends in an activation.
        tied: See `Tied`.

    Input shape: That of the source.
    Output shape: The same as the source's.

    Example:

    >>> dense = keras.layers.Dense(2, activation="relu", kernel_initializer="ones", bias_initializer="ones")
    >>> dense.build((None, 1))
    >>> keras.ops.convert_to_numpy(PreActivation(dense)(np.array([[-3.0]]))).tolist()
    [[-2.0, -2.0]]
    """

    def __init__(self, source: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        self.takes_training = "training" in inspect.signature(source.call).parameters
        self.__dict__["linear"] = without_activation(source)  # past Keras, which would take it for one more layer

    @property
    def exact(self) -> bool:
        return False

    def call(self, x: Tensor) -> Tensor:
        compute = self.linear.call if self.source.quantization_mode is None else self.linear.quantized_call
        return compute(x, training=False) if self.takes_training else compute(x)

    def apply_forward(self, x: Tensor) -> Tensor:
        """What this layer takes where its source takes x, which is the same."""
        return x

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(x.shape), dtype=self.compute_dtype)

    def compute_output_shape(self, x_shape: Shape) -> Shape:
        return tuple(self.source.compute_output_shape(x_shape))


@rule(PreActivation)
def adjoint_of_pre_activation(
    source: PreActivation, *, tied: bool = True, name: str | None = None
) -> keras.layers.Layer:
    """It is affine: its adjoint is that of the linear part of the layer."""
    return linear_adjoint(source.source, tied=tied, name=name)


def without_activation(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The same layer with the same attributes, now and later, but for its activation, which it does not have.

    The layer itself stays as it is, for other threads.
    """
    if inside(layer) is not layer:
        return stand_in(layer, {"layer": without_activation(layer.layer)})
    linear: keras.layers.Layer = object.__new__(_without_activation(layer.__class__))
    object.__setattr__(linear, "__dict__", vars(layer))
    return linear


@lru_cache
def _without_activation(layer_class: Any) -> Any:
    # A property comes before what an object has in its own dictionary.
    linear = property(lambda self: keras.activations.linear)
    return type(layer_class.__name__, (layer_class,), {"activation": linear})
