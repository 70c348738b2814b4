"""Calls that compute every position by itself: activations, merges, normalisations at inference, maps of the channels.

Each line of the table says of a layer which axes it mixes, or has weights along; along all others a part of what it gives
depends on the same part of what it takes, and the layer is called on that.
"""

from collections.abc import Callable, Iterable, Sequence
from string import ascii_letters
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_adjoint.blocks.interval import Along
from keras_adjoint.blocks.rule import Reads, Rule
from keras_adjoint.blocks.sized_call import SizedCall
from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import (
    CustomScaleLayer,
    LayerScale,
    StochasticDepth,
    activation_operations,
    existing,
    nn_operations,
    numpy_operations,
)
from keras_adjoint.layers.activations import function_of
from keras_adjoint.layers.dense import REVERSIBLE, AdjointDense, AdjointEmbedding
from keras_adjoint.layers.inference import AUGMENTATION
from keras_adjoint.layers.norm import (
    AdjointAffinePart,
    AdjointBatchNormalization,
    AdjointLayerScale,
    AdjointNormalization,
    AdjointRescaling,
)
from keras_adjoint.layers.registry import describe, nearest_class

L = keras.layers
Mixed: TypeAlias = Callable[[Any, tuple[int, ...]], Iterable[int]]  # (layer, shape without the batch axis) ↦ axes


def _axis(name: str = "axis") -> Mixed:
    """The axes in an attribute, the batch axis counted."""

    def mixed(layer: Any, shape: tuple[int, ...]) -> Iterable[int]:
        axes = getattr(layer, name)
        return batchless(axes if isinstance(axes, (list, tuple)) else [axes], len(shape))

    return mixed


def batchless(axes: Sequence[int], rank: int) -> list[int]:
    """Axes of a batch, as axes of a shape without the batch axis."""
    return [axis % (rank + 1) - 1 for axis in axes]


def _none(layer: Any, shape: tuple[int, ...]) -> Iterable[int]:
    return ()


def _last(layer: Any, shape: tuple[int, ...]) -> Iterable[int]:
    return (len(shape) - 1,)


def _all(layer: Any, shape: tuple[int, ...]) -> Iterable[int]:
    return range(len(shape))


def _of_source(mixed: Mixed) -> Mixed:
    return lambda layer, shape: mixed(layer.source, shape)


def _weights_of(*names: str) -> Mixed:
    """The axes along which attributes, which broadcast to what the layer takes, have several numbers."""

    def mixed(layer: Any, shape: tuple[int, ...]) -> Iterable[int]:
        found = set()
        for name in names:
            value = getattr(layer, name)
            sizes = tuple(value.shape) if hasattr(value, "shape") else np.shape(value)
            found |= {len(shape) + axis - len(sizes) for axis, size in enumerate(sizes) if size != 1}
        return found

    return mixed


def _of_activation(layer: Any, shape: tuple[int, ...]) -> Iterable[int]:
    return mixed_by_activation(layer.activation, len(shape), layer)


MIXED: dict[type, Mixed] = {
    **dict.fromkeys((L.ReLU, L.LeakyReLU, L.ELU, L.Identity, L.ActivityRegularization, L.GaussianNoise), _none),
    **dict.fromkeys((L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D), _none),
    **dict.fromkeys((L.AlphaDropout, L.GaussianDropout, StochasticDepth, CustomScaleLayer, *AUGMENTATION), _none),
    **dict.fromkeys((L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum), _none),
    **dict.fromkeys((L.Dense, AdjointDense, AdjointEmbedding, L.Masking), _last),
    **dict.fromkeys((L.Softmax, L.BatchNormalization, L.LayerNormalization, L.UnitNormalization), _axis()),
    **dict.fromkeys(existing(L, "RMSNormalization"), _axis()),
    AdjointBatchNormalization: _of_source(_axis()),
    AdjointAffinePart: _of_source(_axis()),
    L.GroupNormalization: _all,
    L.Activation: _of_activation,
    L.PReLU: _weights_of("alpha"),
    L.Normalization: _weights_of("mean", "variance"),
    AdjointNormalization: _of_source(_weights_of("mean", "variance")),
    L.Rescaling: _weights_of("scale", "offset"),
    AdjointRescaling: _of_source(_weights_of("scale", "offset")),
    LayerScale: _weights_of("gamma"),
    AdjointLayerScale: _of_source(_weights_of("gamma")),
}

ELEMENTWISE = (
    *("relu", "leaky_relu", "relu6", "elu", "selu", "celu", "gelu", "tanh", "tanh_shrink", "silu", "sigmoid"),
    *(
        "exponential",
        "hard_sigmoid",
        "hard_silu",
        "hard_tanh",
        "hard_shrink",
        "soft_shrink",
        "squareplus",
        "sparse_plus",
    ),
    *("sparse_sigmoid", "log_sigmoid", "linear", "softplus", "softsign", "mish", "threshold"),
)
FUNCTIONS = [getattr(keras.activations, name) for name in ELEMENTWISE if hasattr(keras.activations, name)]
ALONG_CHANNELS = [
    getattr(keras.activations, name)
    for name in ("softmax", "log_softmax", "sparsemax")
    if hasattr(keras.activations, name)
]


def mixed_by_activation(activation: Any, rank: int, layer: keras.Operation) -> Iterable[int]:
    """The axes that the activation at the end of a layer mixes.

    Raises:
        NoRuleError: If that is not known.
    """
    if activation is None:
        return ()
    if isinstance(activation, keras.layers.Layer):
        found = nearest_class(activation, MIXED)
        if found is not None and not activation.weights:
            return MIXED[found](activation, (0,) * rank)
    function = function_of(activation)
    if any(function is known for known in FUNCTIONS) or type(function) in OPERATIONS:
        return ()
    if any(function is known for known in ALONG_CHANNELS):
        return (rank - 1,)
    raise NoRuleError(
        f"Whether the activation of `{layer.name}` computes every position by itself is not known; of those in "
        f"`keras.activations` it is. Received: activation={getattr(activation, '__name__', activation)!r}, {describe(layer)}"
    )


# --- operations, as in `x + y`

_ARITHMETIC = existing(
    numpy_operations,
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum", "Negative", "Absolute", "Square"),
    *("Sqrt", "Exp", "Tanh", "Clip"),
)
_NONLINEAR = existing(
    nn_operations,
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "Silu", "Sigmoid", "HardSigmoid", "HardSilu", "Softplus"),
    *("Softsign", "LogSigmoid", "HardTanh", "Celu"),
)
OPERATIONS = (*_ARITHMETIC, *_NONLINEAR, activation_operations.ReLU)


# --- the rule


def pointwise(call: SizedCall, layer: Any) -> Rule:
    """The rule of a layer in the table, and of an operation like these."""
    mixed = set(_along_constants(call)) if type(layer) in OPERATIONS else _mixed_by(layer, call)
    return Rule(tuple(_reads(call, shape, mixed) for shape in call.in_shapes))


def _mixed_by(layer: Any, call: SizedCall) -> set[int]:
    """The axes that a layer in the table mixes, its activation included."""
    found = next(known for known in type(layer).__mro__ if known in MIXED)
    mixed = set(MIXED[found](layer, call.in_shapes[0]))
    activation = getattr(layer, "activation", None) if found is not L.Activation else None
    return mixed | set(mixed_by_activation(activation, len(call.out_shape), layer))


def activation_gradient(call: SizedCall, layer: Any) -> Rule:
    """The derivative of an activation: Jᵀ mixes what the activation does.

    Raises:
        NoRuleError: If that is not known.
    """
    if nearest_class(layer.source, MIXED) is None:
        raise NoRuleError(
            f"`{call.place}` cannot be applied in blocks: on which positions a position of what `{layer.source.name}` gives "
            f"depends is not known. Received: {call.describe()}"
        )
    mixed = _mixed_by(layer.source, call)
    return Rule(tuple(_reads(call, shape, mixed) for shape in call.in_shapes))


def _reads(call: SizedCall, shape: tuple[int, ...], mixed: set[int]) -> Reads:
    if len(shape) != len(call.out_shape):
        raise NoRuleError(
            f"`{call.place}` broadcasts tensors of other numbers of axes, and no rule is known for the blocks of such a call. "
            f"Received: {' and '.join(map(str, call.in_shapes))}, {call.describe()}"
        )
    return tuple(
        None if axis in mixed or size != made else Along(axis, size)
        for axis, (size, made) in enumerate(zip(shape, call.out_shape, strict=True))
    )


def _along_constants(call: SizedCall) -> Iterable[int]:
    """The axes along which an operation is called with several numbers."""
    rank = len(call.out_shape)
    for constant in call.constants:
        shape = tuple(getattr(constant, "shape", ()))
        yield from (rank + axis - len(shape) for axis, size in enumerate(shape) if size != 1)


def joined(call: SizedCall, layer: Any) -> Rule:
    """Concatenation: along its own axis everything is read."""
    own = layer.axis % (len(call.out_shape) + 1) - 1
    reads = [tuple(None if a == own else Along(a, size) for a, size in enumerate(shape)) for shape in call.in_shapes]
    return Rule(tuple(reads))


def embedded(call: SizedCall, layer: Any) -> Rule:
    """Words to vectors, along a new last axis."""
    (shape,) = call.in_shapes
    return Rule((tuple(Along(axis, size) for axis, size in enumerate(shape)),))


def contracted(call: SizedCall, layer: Any) -> Rule:
    """`EinsumDense`: the letters that the kernel does not have go by themselves, unless they are summed over."""
    (shape,) = call.in_shapes
    given, kernel, made = _letters(layer.equation, 1 + len(shape))
    alone = set(made) - set(kernel)
    reads = [Along(made.index(a) - 1, n) if a in alone else None for a, n in zip(given[1:], shape, strict=True)]
    activation = mixed_by_activation(getattr(layer, "activation", None), len(call.out_shape), layer)
    return Rule((tuple(reads),), mixes=frozenset(activation))


def _letters(equation: str, rank: int) -> tuple[str, str, str]:
    """(input, kernel, output) of an equation for inputs of so many axes, with letters in the place of an ellipsis."""
    sides, made = equation.replace(" ", "").split("->")
    given, kernel = sides.split(",")
    free = "".join(sorted(set(ascii_letters) - set(equation)))[: rank - len(given.replace("...", ""))]
    return given.replace("...", free), kernel, made.replace("...", free)


EMBEDDINGS = (L.Embedding, *REVERSIBLE)
