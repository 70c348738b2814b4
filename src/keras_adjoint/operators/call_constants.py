"""The Lipschitz constant of one call in a graph: what it makes of differences between the tensors that it takes.

Of linear layers it is the bound of their norm, of activations their steepest slope. Of maxima over windows, a change of one
number reaches no more than the windows that it lies in, so that ‖Δy‖² ≤ Σ_windows max |Δx|² ≤ n ‖Δx‖² if none lies in more
than n windows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import core_operations, existing, layers_inside, numpy_operations
from keras_adjoint.layers.adjoint import has_activation
from keras_adjoint.layers.arguments import depends_on_mask
from keras_adjoint.layers.linearity import NotLinear
from keras_adjoint.layers.merge import WEIGHTS, weights_of
from keras_adjoint.layers.registry import REGISTERED_BY_USERS, class_with_rule, nearest_class
from keras_adjoint.layers.selection import ADAPTIVE_MAX_POOLS, EXTREMA
from keras_adjoint.layers.sized import windows_of
from keras_adjoint.layers.sizes import spatial
from keras_adjoint.layers.tied import Tied
from keras_adjoint.layers.wrapped import activation_of
from keras_adjoint.models.automatic import check_linear_call, is_automatic
from keras_adjoint.models.batch_axis import check_batch_axis
from keras_adjoint.models.calls import Call, Role
from keras_adjoint.models.policies import ends_in_activation, policy_of_class
from keras_adjoint.models.refused_calls import check_training
from keras_adjoint.models.steps import Steps, calls_at_every_step
from keras_adjoint.operators.activations import constant_of
from keras_adjoint.operators.asked_size import sizes_text
from keras_adjoint.operators.layer_bounds import rounding_of
from keras_adjoint.operators.lipschitz import Lipschitz
from keras_adjoint.operators.model_operator import ADDITIONS, MOVES, bound_of_call, copies_in
from keras_adjoint.operators.operator import ABOVE
from keras_adjoint.ops import Shape
from keras_adjoint.ops.geometry import Axis


class How(StrEnum):
    """How the constant of a call was found."""

    BOUND = "bound"  # of the norm of a linear layer, by a rule for its class; times that of its activation
    MATRIX = "matrix"  # by the matrix of a layer or operation without a rule that proved to be linear
    ACTIVATION = "activation"
    POOLING = "pooling"  # by maxima
    SUM = "sum"
    SELECTION = "selection"  # of the larger or smaller one of several tensors
    MOVE = "move"  # of numbers
    SCALE = "scale"  # by constants
    LIPSCHITZ = "Lipschitz"  # the constant of the wrapper
    NONE = "none"  # there is none, or none is known


class NoConstant(Exception):
    """Why a call has no Lipschitz constant, or none is known.

    Args:
        reason: Why.
        linear: The constant of what is linear about the layer, see `Step`.
    """

    def __init__(self, reason: str, linear: float | None = None) -> None:
        super().__init__(reason)
        self.linear = linear


@dataclass(frozen=True)
class Step:
    """What a call makes of differences.

    Attributes:
        how: How that is known.
        factors: For each tensor that it takes, by how much it lengthens a difference of that tensor alone, at most.
        adds: Whether differences of several tensors may add up in the result; else they stand side by side.
        linear: Of a linear layer, the constant of its linear part, without its activation.
        reason: Why there is no constant, or "".
    """

    how: How
    factors: tuple[float, ...]
    adds: bool = False
    linear: float | None = None
    reason: str = ""

    @property
    def constant(self) -> float:
        """By how much it lengthens a difference of all its tensors together."""
        if self.adds:
            return math.sqrt(sum(factor * factor for factor in self.factors))
        return max(self.factors, default=0.0)


def step_of(call: Call) -> Step:
    """The `Step` of a call; its factors are infinite where it has no constant."""
    try:
        _check(call)
        found = _step(call)
        if not all(map(math.isfinite, found.factors)):
            raise NoConstant("its constant is too large for a float, or no number")
        return found
    except Exception as error:  # of whatever kind a layer's own code raises
        says_why = isinstance(error, (NoConstant, NoRuleError))
        reason = ("" if says_why else _open_sizes(call)) or str(error) or type(error).__name__
        return Step(How.NONE, (math.inf,) * len(call.inputs), linear=getattr(error, "linear", None), reason=reason)


def _open_sizes(call: Call) -> str:
    """That sizes are not known, where Keras cannot tell them, as behind an `EinsumDense` that was made without them."""
    shapes = [tuple(x.shape[1:]) for x in call.inputs]
    if all(None not in shape for shape in shapes):
        return ""
    return (
        f"its constant depends on the size of what it takes, {' and '.join(map(sizes_text, shapes))}, and the layers before it "
        f"do not say all of that"
    )


# --- what has no constant whatever it computes


def _check(call: Call) -> None:
    check_training(call)
    check_batch_axis(call)
    layers = [call.operation, *layers_inside(call.operation)] if _is_layer(call.operation) else []
    if any(getattr(layer, "quantization_mode", None) for layer in layers):
        raise NoConstant("it is quantised, and rounds what it takes to a few steps")
    values = [weight for layer in layers[:1] for weight in layer.weights]
    values += [array for array in map(_as_array, call.constants) if array is not None]
    if not all(np.isfinite(_numbers(each)).all() for each in values):
        raise NoConstant("it computes with NaN or infinity")
    if any(not _is_float(y.dtype) for y in call.outputs) and not _moves(call):
        raise NoConstant("it gives integers, which change in steps")
    if isinstance(call.operation, Steps):
        return  # which read no more than the shape of the other tensor
    for argument in call.arguments:
        if argument.role == Role.RECORDED and argument.path[0] != "output_size" and not _ignores_mask(call):
            raise NoConstant(f"it depends on `{argument.name}`, a tensor that the model computes")


def _is_layer(operation: keras.Operation) -> bool:
    return isinstance(operation, keras.layers.Layer)


def _is_float(dtype: str) -> bool:
    return "float" in dtype


def _numbers(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(ops.convert_to_numpy(value)).astype("float64")


def _as_array(value: Any) -> Any:
    """A constant argument of a call, if it is made of numbers."""
    is_number = hasattr(value, "dtype") or isinstance(value, float)
    return value if is_number and not isinstance(value, type) else None


def _moves(call: Call) -> bool:
    """Whether a call does nothing but move the numbers of one tensor."""
    kinds = (*MOVES, keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute, keras.layers.Identity)
    return type(call.operation) in kinds and len(call.inputs) == 1 and call.inputs[0].dtype == call.outputs[0].dtype


def _ignores_mask(call: Call) -> bool:
    """Whether what a call gives does not depend on its mask."""
    layer = call.operation
    if not _is_layer(layer) or isinstance(layer, Tied):
        return False
    if policy_of_class(layer) == "activation":
        return nearest_class(layer, (keras.layers.Softmax,)) is None
    rule = class_with_rule(layer)
    return (
        rule is not None and rule not in REGISTERED_BY_USERS and not is_automatic(call) and not depends_on_mask(layer)
    )


# --- by class


def _step(call: Call) -> Step:
    if _moves(call):
        return Step(How.MOVE, (1.0,))
    return _step_of_layer(call) if _is_layer(call.operation) else _step_of_operation(call)


def _step_of_layer(call: Call) -> Step:
    layer, shapes = call.operation, [tuple(x.shape) for x in call.inputs]
    while calls_at_every_step(layer):
        layer, shapes = layer.layer, [(shape[0], *shape[2:]) for shape in shapes]
    if nearest_class(layer, (Lipschitz,)) is not None:
        return _of_lipschitz(layer, shapes[0])
    for classes, find in NONLINEAR.items():
        if nearest_class(layer, classes) is not None:
            return find(call, layer, shapes)
    if policy_of_class(layer) == "activation":
        return _of_activation(layer, shapes[0])
    if nearest_class(layer, WEIGHTS) is not None and not is_automatic(call):
        weights = weights_of(layer, len(shapes))
        factors = [abs(w) * math.sqrt(n) for w, n in zip(weights, _copies(call), strict=True)]
        return Step(How.SUM, tuple(factors), adds=len(shapes) > 1)
    return _of_linear(call, shapes)


def _of_lipschitz(layer: Lipschitz, shape: Shape) -> Step:
    rounding = rounding_of(layer.layer.compute_dtype) * ABOVE
    bound = _float(layer.operator_at(shape).bound()) * rounding
    linear = min(bound, layer.constant / layer.activation_constant * rounding)
    return Step(How.LIPSCHITZ, (linear * layer.activation_constant,), linear=linear)


def _of_activation(activation: keras.Operation, shape: Shape) -> Step:
    if nearest_class(activation, (keras.layers.PReLU,)) if _is_layer(activation) else False:
        return Step(How.ACTIVATION, (float(np.abs(_numbers(activation.alpha)).max(initial=1.0)),))
    return Step(How.ACTIVATION, (_constant_of(activation, shape),))


def _constant_of(activation: Any, shape: Shape) -> float:
    found = constant_of(activation, shape)
    if found is None:
        function = getattr(activation, "activation", activation)
        name = getattr(function, "__name__", type(function).__name__)
        raise NoConstant(f"no Lipschitz constant is known for the activation `{name}`")
    return found


def _of_linear(call: Call, shapes: Sequence[Shape]) -> Step:
    """By the bound of the linear part, whose rule or test says that it is linear."""
    layer = call.operation
    automatic = not isinstance(layer, Tied) and is_automatic(call)
    if automatic:
        _check_linear(call)
    linear = _float(bound_of_call(call)) * ABOVE
    factor = linear
    if has_activation(layer) and not automatic and ends_in_activation(layer):
        factor = linear * _constant_of(activation_of(layer), tuple(call.outputs[0].shape)) * ABOVE
    return Step(How.MATRIX if automatic else How.BOUND, (factor,) * len(call.inputs), linear=linear)


def _check_linear(call: Call) -> None:
    """Of what has no rule."""
    try:
        check_linear_call(call)
    except NotLinear as found:
        raise NoConstant(f"no constant is known for it, and {found}") from None


def _float(bound: Any) -> float:
    return float(ops.convert_to_numpy(bound)) if hasattr(bound, "shape") else float(bound)


# --- maxima


def most_windows(axes: Sequence[tuple[Sequence[int], Sequence[int], int]]) -> int:
    """In how many windows a number lies at most.

    Args:
        axes: For each axis where the windows begin, where they end, and its size.
    """
    count = 1
    for starts, ends, size in axes:
        begun, ended = (np.bincount(np.clip(each, 0, size), minlength=size + 1) for each in (starts, ends))
        count *= int(np.cumsum(begun - ended)[:size].max(initial=1))
    return count


def _of_max_pooling(call: Call, pool: Any, shapes: Sequence[Shape]) -> Step:
    axes: list[Axis] = [
        window.at(size)
        for window, size in zip(windows_of(pool, "pool_size"), spatial(shapes[0], pool.data_format), strict=True)
    ]
    starts = [np.arange(axis.outputs) * axis.stride - axis.pad_before for axis in axes]
    windows = most_windows([(start, start + axis.taps, axis.size) for start, axis in zip(starts, axes, strict=True)])
    return Step(How.POOLING, (math.sqrt(windows),))


def _of_adaptive_max_pooling(call: Call, pool: Any, shapes: Sequence[Shape]) -> Step:
    axes = []
    for outputs, size in zip(pool.output_size, spatial(shapes[0], pool.data_format), strict=True):
        numbers = np.arange(outputs)
        axes.append((numbers * size // outputs, -(-(numbers + 1) * size // outputs), size))
    return Step(How.POOLING, (math.sqrt(most_windows(axes)),))


def _of_global_max_pooling(call: Call, pool: Any, shapes: Sequence[Shape]) -> Step:
    return Step(How.POOLING, (1.0,))


def _of_extremum(call: Call, layer: Any, shapes: Sequence[Shape]) -> Step:
    """|max(x, z) − max(x', z')| ≤ max(|x − x'|, |z − z'|), at each place."""
    return Step(How.SELECTION, tuple(map(math.sqrt, _copies(call))))


def _of_statistics(call: Call, layer: Any, shapes: Sequence[Shape]) -> Step:
    raise NoConstant("it divides by a statistic of what it takes, so that its `epsilon` alone limits how steep it is")


def _of_lookup(call: Call, layer: Any, shapes: Sequence[Shape]) -> Step:
    """An embedding is linear in one-hot vectors, but it is called with indices."""
    reason = "it looks up integers, which it makes of floats as well, and a lookup has no slope"
    raise NoConstant(reason, linear=_float(bound_of_call(call)) * ABOVE)


def _of_product(call: Call, layer: Any, shapes: Sequence[Shape]) -> Step:
    if len(call.inputs) < 2:
        return _of_linear(call, shapes)
    raise NoConstant("it multiplies tensors that the model computes, and products grow without bound")


Find = Callable[[Call, Any, Sequence[Shape]], Step]
L = keras.layers
NONLINEAR: dict[tuple[type, ...], Find] = {
    (L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D): _of_max_pooling,
    (L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D): _of_global_max_pooling,
    ADAPTIVE_MAX_POOLS: _of_adaptive_max_pooling,
    EXTREMA: _of_extremum,
    (L.LayerNormalization, L.GroupNormalization, L.RMSNormalization, L.UnitNormalization): _of_statistics,
    (L.Embedding,): _of_lookup,
    (L.Multiply, L.Dot): _of_product,
}


# --- operations


def _step_of_operation(call: Call) -> Step:
    operation = call.operation
    if isinstance(operation, MOVES):
        return Step(How.MOVE, (1.0,) * len(call.inputs))
    if len(call.inputs) == 1:
        steepest = constant_of(operation, tuple(call.inputs[0].shape))
        if steepest is not None:
            return Step(How.ACTIVATION, (steepest,))
    for classes, find in OPERATIONS.items():
        found = find(call) if type(operation) in classes else None
        if found is not None:
            return found
    _check_linear(call)
    return Step(How.MATRIX, (_float(bound_of_call(call)) * ABOVE,) * len(call.inputs))


def _copies(call: Call) -> list[float]:
    """How often the result holds each number of each tensor."""
    y = call.outputs[0].shape
    # Layers align the axes of samples, and operations the last ones.
    shifted = not _is_layer(call.operation) and any(len(x.shape) != len(y) for x in call.inputs)
    if shifted or any(x.shape[0] != y[0] for x in call.inputs):
        raise NoConstant("it repeats samples, or joins them")
    return copies_in(call)


def _of_addition(call: Call) -> Step:
    factors = tuple(map(math.sqrt, _copies(call)))
    return Step(How.SUM if len(factors) > 1 else How.SCALE, factors, adds=len(factors) > 1)


def _of_selection(call: Call) -> Step:
    return Step(How.SELECTION, tuple(map(math.sqrt, _copies(call))))


def _of_scale(call: Call) -> Step:
    """x c and x / c, for a constant c."""
    if len(call.inputs) > 1:
        return _of_product(call, None, ())
    first, second = (call.parameters[name] for name in ("x1", "x2"))
    divides = not isinstance(call.operation, numpy_operations.Multiply)
    if divides and second is call.inputs[0]:
        raise NoConstant("it divides by a tensor that the model computes, which may be zero")
    scale = np.abs(_numbers(second if first is call.inputs[0] else first))
    if divides:
        with np.errstate(divide="ignore"):
            scale = 1 / scale
    rounding = rounding_of(call.outputs[0].dtype) * ABOVE
    return Step(How.SCALE, (float(scale.max(initial=0.0)) * math.sqrt(*_copies(call)) * rounding,))


def _of_steepness_one(call: Call) -> Step:
    return Step(How.ACTIVATION, (1.0,))


def _of_largest(call: Call) -> Step:
    """Of numbers that lie in one window each."""
    return Step(How.POOLING, (1.0,))


def _of_total(call: Call) -> Step:
    """Σ of n numbers has the norm √n, and their mean 1 / √n."""
    (x,), axes = call.inputs, call.operation.axis
    rank = len(x.shape)
    axes = range(rank) if axes is None else [axis % rank for axis in axes]
    norm = math.sqrt(math.prod(x.shape[axis] for axis in axes))
    rounding = rounding_of(call.outputs[0].dtype) * ABOVE
    return Step(How.BOUND, ((1 / norm if isinstance(call.operation, numpy_operations.Mean) else norm) * rounding,))


def _of_item(call: Call) -> Step | None:
    """Slices take every number once; what else there is may take it several times."""
    keys = tree.flatten(call.parameters["key"])
    once = all(key is None or key is Ellipsis or isinstance(key, (int, slice)) for key in keys)
    return Step(How.MOVE, (1.0,)) if once else None


def _of_padding(call: Call) -> Step | None:
    return Step(How.MOVE, (1.0,)) if call.operation.mode == "constant" else None


OPERATIONS: dict[tuple[type, ...], Callable[[Call], Step | None]] = {
    ADDITIONS: _of_addition,
    (numpy_operations.Maximum, numpy_operations.Minimum): _of_selection,
    (numpy_operations.Multiply, numpy_operations.TrueDivide, numpy_operations.Divide): _of_scale,
    tuple(existing(numpy_operations, "Absolute", "Abs", "Sin", "Cos", "Arctan", "Arcsinh", "Clip")): _of_steepness_one,
    (numpy_operations.Max, numpy_operations.Min, numpy_operations.Amax, numpy_operations.Amin): _of_largest,
    (numpy_operations.Sum, numpy_operations.Mean): _of_total,
    (numpy_operations.GetItem,): _of_item,
    (numpy_operations.Pad,): _of_padding,
    (core_operations.Cast, core_operations.StopGradient, *existing(numpy_operations, "Copy")): lambda call: Step(
        How.MOVE, (1.0,)
    ),
}
