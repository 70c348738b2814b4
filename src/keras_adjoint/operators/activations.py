"""Lipschitz constants of Keras' activations: the largest value of their derivative."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_adjoint.keras_internals import activation_operations, nn_operations, numpy_operations
from keras_adjoint.layers.registry import nearest_class
from keras_adjoint.ops import Shape

# Where the derivative is largest, unless that is 1. GELU, x Φ(x), has its inflection at √2, and softmax on a line between two
# classes of equal probability, where its Jacobian has the norm 1/2.
_GELU = 0.5 * (1 + math.erf(1)) + math.exp(-1) / math.sqrt(math.pi)
_SELU = 1.0507009873554805 * 1.6732632423543772

CONSTANTS: dict[str, float] = {
    "linear": 1.0,
    "relu": 1.0,
    "relu6": 1.0,
    "elu": 1.0,
    "celu": 1.0,
    "selu": _SELU,
    "gelu": _GELU + 1e-3,  # its approximation by tanh is a little steeper
    "silu": 1.0999,
    "mish": 1.0890,
    "softplus": 1.0,
    "softsign": 1.0,
    "tanh": 1.0,
    "sigmoid": 0.25,
    "hard_sigmoid": 1 / 6,
    "hard_silu": 1.5,
    "hard_tanh": 1.0,
    "log_sigmoid": 1.0,
    "soft_shrink": 1.0,
    "tanh_shrink": 1.0,
    "sparse_plus": 1.0,
    "sparse_sigmoid": 0.5,
    "squareplus": 1.0,
    "leaky_relu": 1.0,
    "softmax": 0.5,
}


def _slope_below(slope: Any) -> float | None:
    """Of an activation that is x above zero and has this slope below."""
    return None if slope is None or not math.isfinite(slope) else max(1.0, abs(float(slope)))


def _of_rectifier(source: Any) -> float | None:
    """Its value jumps at a threshold that is not zero."""
    return None if source.threshold else _slope_below(source.negative_slope)


# Layers and operations with settings of their own.
WITH_SETTINGS: dict[type, Callable[[Any], float | None]] = {
    keras.layers.Activation: lambda layer: constant_of(layer.activation),
    keras.layers.ReLU: _of_rectifier,
    keras.layers.LeakyReLU: lambda layer: _slope_below(layer.negative_slope),
    keras.layers.ELU: lambda layer: _slope_below(layer.alpha),
    keras.layers.Softmax: lambda layer: CONSTANTS["softmax"],
    activation_operations.ReLU: _of_rectifier,
    nn_operations.LeakyRelu: lambda operation: _slope_below(operation.negative_slope),
    nn_operations.Elu: lambda operation: _slope_below(operation.alpha),
    nn_operations.Celu: lambda operation: 1.0 if operation.alpha > 0 else None,
    nn_operations.SoftShrink: lambda operation: 1.0 if operation.threshold >= 0 else None,
    nn_operations.Squareplus: lambda operation: 1.0 if operation.b >= 0 else None,
}

# Operations without settings, by the names in `CONSTANTS`.
_NAMES: dict[type, str] = {
    activation_operations.Mish: "mish",
    nn_operations.Gelu: "gelu",
    nn_operations.HardSigmoid: "hard_sigmoid",
    nn_operations.HardSilu: "hard_silu",
    nn_operations.HardTanh: "hard_tanh",
    nn_operations.LogSigmoid: "log_sigmoid",
    nn_operations.Relu: "relu",
    nn_operations.Relu6: "relu6",
    nn_operations.Selu: "selu",
    nn_operations.Sigmoid: "sigmoid",
    nn_operations.Silu: "silu",
    nn_operations.Softmax: "softmax",
    nn_operations.Softplus: "softplus",
    nn_operations.Softsign: "softsign",
    nn_operations.SparsePlus: "sparse_plus",
    nn_operations.SparseSigmoid: "sparse_sigmoid",
    nn_operations.TanhShrink: "tanh_shrink",
    numpy_operations.Tanh: "tanh",
}
_LOG_SOFTMAX = (keras.activations.log_softmax, ops.log_softmax)


def constant_of(activation: Any, shape: Shape = ()) -> float | None:
    """The Lipschitz constant of an activation; `None` if it has none, or none is known.

    Args:
        activation: A function of `keras.activations` or `keras.ops`, a layer or an operation without weights, or `None` for the
            identity.
        shape: That of the tensor, which the constant of the logarithm of softmax depends on.
    """
    if activation is None:
        return 1.0
    if isinstance(activation, keras.Operation):
        return _of_operation(activation, shape)
    if any(activation is function for function in _LOG_SOFTMAX):
        return _of_log_softmax(shape, -1)
    name = getattr(activation, "__name__", "")
    is_own = any(getattr(module, name, None) is activation for module in (keras.activations, ops))
    return CONSTANTS.get(name) if is_own else None


def _of_operation(activation: keras.Operation, shape: Shape) -> float | None:
    if isinstance(activation, nn_operations.LogSoftmax):
        return _of_log_softmax(shape, activation.axis)
    if isinstance(activation, keras.layers.Activation) and shape:
        return constant_of(activation.activation, shape)
    nearest = nearest_class(activation, WITH_SETTINGS)
    if nearest is not None:
        return WITH_SETTINGS[nearest](activation)
    return CONSTANTS.get(_NAMES.get(type(activation), ""))


def _of_log_softmax(shape: Shape, axis: int) -> float | None:
    """Its Jacobian I − 1 pᵀ is a projection, as long as 1 pᵀ, which is one as well: √n ‖p‖ ≤ √n for n classes."""
    known = -len(shape) <= axis < len(shape) and shape[axis] is not None
    return math.sqrt(shape[axis]) if known else None
