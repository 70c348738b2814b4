"""Lipschitz constants of Keras' activations: the largest value of their derivative."""

import math
from typing import Any

import keras

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


def constant_of(activation: Any) -> float | None:
    """The Lipschitz constant of an activation; `None` if it has none, or none is known.

    Args:
        activation: A function of `keras.activations`, or `None` for the identity.
    """
    if activation is None:
        return 1.0
    name = getattr(activation, "__name__", "")
    is_own = getattr(keras.activations, name, None) is activation
    return CONSTANTS.get(name) if is_own else None
