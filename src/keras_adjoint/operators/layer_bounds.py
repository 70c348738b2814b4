"""Bounds of single layers, by the class of their adjoint: a number that is never below the norm of the linear part."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from keras_adjoint.layers import registry
from keras_adjoint.layers.dense import AdjointDense, AdjointEinsumDense, AdjointEmbedding
from keras_adjoint.layers.depthwise import AdjointSeparableConv
from keras_adjoint.layers.global_pooling import AdjointGlobalAveragePooling, BroadcastGlobalPooling
from keras_adjoint.layers.merge import AdjointConcatenate, AdjointSum, weights_of
from keras_adjoint.layers.norm import AdjointScaling
from keras_adjoint.layers.pooling import AdjointAveragePooling, SpreadPooling
from keras_adjoint.layers.selection import SpreadAdaptivePooling
from keras_adjoint.layers.shape import AdjointRepeatVector, AdjointReshape, AdjointZeroPadding1D
from keras_adjoint.layers.tied import Tied
from keras_adjoint.layers.tied_channels import TiedChannels
from keras_adjoint.layers.upsampling import AdjointUpSampling
from keras_adjoint.operators.convolution_bound import convolution_bound
from keras_adjoint.operators.eigenvalues import matrix_bound
from keras_adjoint.operators.layer_convolutions import (
    CONVOLUTIONS,
    depthwise_part,
    kernel_of,
    layer_convolution,
    sizes_of,
)
from keras_adjoint.operators.operator import ABOVE
from keras_adjoint.operators.space import Space
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.precision import epsilon

BoundRule = Callable[[Any, Space, Space], Any]
Rule = TypeVar("Rule", bound=BoundRule)

RULES: dict[type, BoundRule] = {}

# Stock layers that are adjoints, and move numbers without adding them up.
MOVES = (
    *(getattr(keras.layers, f"{what}{rank}D") for what in ("Cropping", "ZeroPadding") for rank in (1, 2, 3)),
    keras.layers.Permute,
    keras.layers.Identity,
    keras.layers.Reshape,
    keras.layers.Flatten,
)


def bound_rule(*classes: type) -> Callable[[Rule], Rule]:
    """Decorator: the function below bounds the norm of the forward of adjoint layers of these classes.

    It takes the adjoint layer, and the spaces that the forward takes and gives.
    """

    def register(make: Rule) -> Rule:
        RULES.update(dict.fromkeys(classes, make))
        return make

    return register


def rule_of(layer: keras.layers.Layer) -> BoundRule | None:
    """The rule for an adjoint layer of this class, or of the nearest parent that has one."""
    return next((RULES[each] for each in type(layer).__mro__ if each in RULES), None)


def bound_of(layer: keras.layers.Layer, taken: Space, given: Space) -> Any:
    """The bound of the forward of an adjoint layer by the rule for its class; `None` if there is none.

    An adjoint with other channels is a product of two operators, so the product of their norms is a bound.
    """
    rule = rule_of(layer)
    found = None if rule is None else rule(layer, taken, given)
    matrix = layer.channel_matrix() if isinstance(layer, TiedChannels) else None
    if found is None or matrix is None:
        return found
    return found * matrix_bound(ops.cast(matrix, _at_least_single(layer)))


# The norms of layers with these adjoints never fall as their tensors grow.
GROW_WITH_SIZE: tuple[type, ...] = (
    *CONVOLUTIONS,
    *(AdjointDense, AdjointEinsumDense, AdjointScaling, AdjointReshape),
)


def holds_at_every_size(layer: keras.layers.Layer) -> bool:
    """Whether the bound of a layer, or of an adjoint, on large tensors is one at every size."""
    if isinstance(layer, Tied):
        return holds_at_every_size(layer.source)
    layer_class = registry.class_with_rule(layer)
    made = None if layer_class is None else registry.RULES[layer_class]
    return layer_class in MOVES or (isinstance(made, type) and issubclass(made, GROW_WITH_SIZE))


def rounding_of(dtype: str) -> float:
    """By how much the rounding of what a layer takes and gives may lengthen it; 1 but for half precision."""
    return 1 + 2 * epsilon(dtype) if dtype in ("bfloat16", "float16") else 1.0


@bound_rule(*CONVOLUTIONS)
def _of_convolution(layer: Tied, taken: Space, given: Space) -> Tensor:
    found = layer_convolution(layer, taken, given)
    assert found is not None
    return convolution_bound(found.kernel, found.convolution)


@bound_rule(AdjointSeparableConv)
def _of_separable_convolution(layer: AdjointSeparableConv, taken: Space, given: Space) -> Tensor:
    """As one convolution, unless what is between the two is rounded."""
    rounding = rounding_of(layer.compute_dtype)
    if rounding == 1:
        return _of_convolution(layer, taken, given)
    depthwise = depthwise_part(layer, taken, given)
    pointwise = kernel_of(layer, "pointwise_kernel")
    pointwise = ops.reshape(pointwise, (-1, pointwise.shape[-1]))
    return convolution_bound(depthwise.kernel, depthwise.convolution) * matrix_bound(pointwise) * rounding


@bound_rule(AdjointDense, AdjointEmbedding)
def _of_matrix(layer: Tied, taken: Space, given: Space) -> Tensor:
    return matrix_bound(kernel_of(layer))


@bound_rule(AdjointEinsumDense)
def _of_equation(layer: AdjointEinsumDense, taken: Space, given: Space) -> Tensor:
    """A matrix from the letters of the input to those of the output, for each value of those in both."""
    outputs, rest = layer.equation.replace("...", "").split(",")
    letters, inputs = rest.split("->")
    kernel = kernel_of(layer)
    alone = [axis for axis, letter in enumerate(letters) if letter not in inputs + outputs]
    kernel, letters = (
        ops.sum(kernel, axis=alone) if alone else kernel,
        "".join(x for x in letters if x in inputs + outputs),
    )
    both, rows, columns = (
        [axis for axis, letter in enumerate(letters) if (letter in inputs, letter in outputs) == which]
        for which in ((True, True), (True, False), (False, True))
    )
    shape = [math.prod(kernel.shape[axis] for axis in axes) for axes in (both, rows, columns)]
    copies = math.prod(
        given.shapes[0][outputs.index(letter) - len(outputs)] for letter in outputs if letter not in inputs + letters
    )
    blocks = ops.reshape(ops.transpose(kernel, (*both, *rows, *columns)), shape)
    return ops.max(matrix_bound(blocks)) * math.sqrt(copies) * ABOVE


@bound_rule(AdjointScaling)
def _of_scaling(layer: AdjointScaling, taken: Space, given: Space) -> Tensor:
    scale = layer.factor(len(taken.shapes[0]) + 1)
    return ops.max(ops.abs(ops.cast(scale, _at_least_single(layer)))) * ABOVE


@bound_rule(AdjointAveragePooling, SpreadPooling, AdjointUpSampling)
def _of_axes(layer: Any, taken: Space, given: Space) -> float:
    """A tensor product of matrices, one along each axis, has the product of their norms."""
    return math.prod(_norm(matrix) for matrix in layer.matrices_along(sizes_of(layer, taken)))


def _norm(matrix: np.ndarray[Any, Any]) -> float:
    """The norm of a matrix; of a long one √(‖A‖₁‖A‖∞), which is close for averages."""
    if min(matrix.shape) > 2048:
        found = math.sqrt(np.abs(matrix).sum(axis=0).max() * np.abs(matrix).sum(axis=1).max())
    else:
        found = float(np.linalg.norm(matrix.astype("float64"), 2))
    return found * ABOVE


@bound_rule(AdjointGlobalAveragePooling)
def _of_global_average(layer: AdjointGlobalAveragePooling, taken: Space, given: Space) -> float:
    return ABOVE / math.sqrt(math.prod(sizes_of(layer, taken)))


@bound_rule(BroadcastGlobalPooling)
def _of_broadcasting(layer: BroadcastGlobalPooling, taken: Space, given: Space) -> float:
    """Every number at so many positions."""
    return math.sqrt(taken.size / given.size) * ABOVE


@bound_rule(SpreadAdaptivePooling)
def _of_adaptive_spread(layer: SpreadAdaptivePooling, taken: Space, given: Space) -> float:
    """Of n positions along an axis each of m values gets ⌊n / m⌋ or ⌈n / m⌉."""
    pairs = zip(sizes_of(layer, taken), sizes_of(layer, given), strict=True)
    return math.sqrt(math.prod(-(-size // values) for size, values in pairs)) * ABOVE


@bound_rule(AdjointRepeatVector)
def _of_repeating(layer: AdjointRepeatVector, taken: Space, given: Space) -> float:
    return math.sqrt(given.size / taken.size) * ABOVE


@bound_rule(AdjointReshape, AdjointZeroPadding1D, AdjointConcatenate, *MOVES)
def _of_moves(layer: keras.layers.Layer, taken: Space, given: Space) -> float:
    return math.sqrt(_copies(taken, given)) if isinstance(layer, AdjointConcatenate) else 1.0


def _copies(taken: Space, given: Space) -> float:
    """How often a joined tensor may hold a number that was broadcast."""
    return max(1.0, given.size / max(1, taken.size))


@bound_rule(AdjointSum)
def _of_sum(layer: AdjointSum, taken: Space, given: Space) -> float:
    """‖Σ wᵢ xᵢ‖ ≤ √(Σ wᵢ² rᵢ) ‖x‖, where xᵢ is broadcast to rᵢ copies."""
    weights = weights_of(layer.source, len(taken.shapes))
    pairs = zip(weights, taken.shapes, strict=True)
    return math.sqrt(sum(weight**2 * given.size / math.prod(shape) for weight, shape in pairs)) * ABOVE


@bound_rule(keras.layers.TimeDistributed)
def _at_every_step(layer: keras.layers.TimeDistributed, taken: Space, given: Space) -> Any:
    steps = [Space(tuple(shape[1:] for shape in space.shapes), space.structure) for space in (taken, given)]
    return bound_of(layer.layer, *steps)


def _at_least_single(layer: keras.layers.Layer) -> str:
    return "float64" if layer.compute_dtype == "float64" else "float32"
