"""The adjoint test and its report: whether ⟨A x, y⟩ = ⟨x, B y⟩ on random x and y."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.layers.adjoint import has_activation, linear_adjoint, original_of
from keras_adjoint.layers.options import as_integer, is_real_number
from keras_adjoint.models.adjoint import adjoint
from keras_adjoint.ops import Shape
from keras_adjoint.ops.backend import current, untraced
from keras_adjoint.ops.dot_test import SAFETY, derived_tolerance, operator_dtype, residual_of
from keras_adjoint.ops.precision import epsilon, product_epsilon
from keras_adjoint.testing.linear_models import linear_part_of_model
from keras_adjoint.testing.pairs import UNPOOLING, Array, Operator, Packing, Pair, name_of, pair_of, shapes_in
from keras_adjoint.testing.probes import Probe, floats_inside, probe_of

MOST_ERROR = 1e-2  # of solvers: what is off by more is not called an adjoint
ATTEMPTS = 20  # at one residual, while weights change


@dataclass(frozen=True)
class AdjointReport:
    """The outcome of an adjoint test; true if it passed.

    Attributes:
        passed: Whether the residual is within the tolerance, and the shapes agree.
        residual: The largest |⟨A x, y⟩ − ⟨x, B y⟩| / (‖A x‖ ‖y‖) over all trials; `inf` if B returns another shape, or one of
            the two numbers that are not finite.
        tolerance: What rounding explains.
        dtype: The dtype that the operators computed in.
        diagnosis: What is probably wrong, or "".
        forward: Name of A; of a layer with an activation "the linear part of" it.
        backward: Name of B; of the source of an adjoint layer, likewise.
        input_shape: Shape of x; a tuple of shapes if there are several.
        output_shape: Shape of A x; a tuple of shapes if there are several.
    """

    passed: bool
    residual: float
    tolerance: float
    dtype: str
    diagnosis: str
    forward: str
    backward: str
    input_shape: Shape
    output_shape: Shape

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        verdict = "is" if self.passed else "is not"
        lines = [
            f"{self.backward} {verdict} the adjoint of {self.forward}: residual {self.residual:.1e}, tolerance "
            f"{self.tolerance:.1e} ({self.dtype}, {self.input_shape} to {self.output_shape})"
        ]
        return "\n".join(lines + ([f"Diagnosis: {self.diagnosis}"] if self.diagnosis else []))


@untraced
def check_adjoint(
    forward: Operator,
    backward: Operator | None = None,
    *,
    input_shape: Sequence[Any] | Mapping[str, Any] | None = None,
    trials: int = 3,
    seed: int = 0,
    tolerance: float | None = None,
) -> AdjointReport:
    """Test whether one operator is the adjoint of another, on random inputs.

    The adjoint Aᵀ is the one operator with ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ for all x and y. Three random pairs show the difference
    between it and any other operator, unless the other one is so close that rounding could explain it.

    Args:
        forward: A layer, a model, or a function, of one tensor or of a list of tensors. Of a layer, and of a Functional or
            Sequential model, only the linear part A counts, without biases and activations.
        backward: The operator B to test: a layer, a model, or a function. By default the adjoint of that linear part.
        input_shape: Shape of x, batch axis included, or a list or dictionary of shapes if A takes several tensors. By default
            the shape that `forward` was built with, with a small size where it is unknown.
        trials: Number of random pairs, from 1 on.
        seed: Seed of the random numbers, from 0 on.
        tolerance: The largest residual that passes. By default what rounding explains, see `derived_tolerance`, in the
            coarsest dtype that A or B is known to compute in: that of a layer, of a tensor in a model, or of A x. Layers
            that solve equations, such as `LeastSquares`, may leave what their own tolerance allows besides.

    Returns:
        An `AdjointReport`.

    Raises:
        ValueError: If the input shape is not known, an operator returns no tensor or one without numbers, or an option has a
            value that it does not take.
        KerasAdjointError: If `backward` is not given and `forward` has no adjoint.

    Example:

    >>> conv = keras.layers.Conv2D(4, 3)
    >>> conv.build((1, 8, 8, 4))
    >>> bool(ka.check_adjoint(conv))
    True
    >>> other = keras.layers.Conv2D(4, 3, use_bias=False, padding="valid")
    >>> other.build((1, 6, 6, 4))
    >>> print(ka.check_adjoint(conv, other).diagnosis)
    wrong size: B returns (1, 4, 4, 4) where x has (1, 8, 8, 4)
    """
    trials, seed, tolerance = _at_least(1, "trials", trials), _at_least(0, "seed", seed), _tolerance(tolerance)
    _check_operators(forward, backward)
    with (
        current().eagerly() if current().is_concrete([]) else nullcontext()
    ):  # on JAX also in code that is being compiled
        _check_numbers(forward, backward)
        return _tested(forward, backward, input_shape, trials, seed, tolerance)


def _tested(
    forward: Operator,
    backward: Operator | None,
    input_shape: Sequence[Any] | Mapping[str, Any] | None,
    trials: int,
    seed: int,
    tolerance: float | None,
) -> AdjointReport:
    """The report of `check_adjoint`."""
    name, linear = name_of_linear(forward), linear_part_of_model(forward)
    if linear is not None:
        name, forward, backward = f"the linear part of {name}", linear[0], linear[1] if backward is None else backward
    elif backward is None and isinstance(forward, UNPOOLING):
        forward, backward = forward.source, forward  # its switches need an input of the source
        name = name_of_linear(forward)
    elif backward is None:
        whole = isinstance(forward, keras.Model)
        backward = original_of(forward) or (adjoint(forward) if whole else linear_adjoint(forward))
    given, structure = shapes_in(input_shape, forward, backward)
    dtype = operator_dtype(forward, backward)
    generator = np.random.default_rng(seed)
    inputs = None if all(isinstance(size, int) for size in given) else Packing(given, structure)
    pair = pair_of(forward, backward, given, inputs, dtype, generator)
    shape = given if inputs is None else inputs.shape
    of_x = probe_of(forward, shape, inputs, dtype)
    x = of_x.random(generator)
    output_shape = pair.forward(x).shape
    if not math.prod(output_shape):
        raise ValueError(
            f"The output has no numbers, so there is nothing to test. Pass an `input_shape` for which it has some. "
            f"Received: an output of shape {output_shape} for an input of shape {shape}, forward={name_of(forward)}"
        )
    of_y = probe_of(backward, output_shape, pair.outputs, dtype)
    if tolerance is None:
        inside = floats_inside(forward) | floats_inside(backward) | pair.floats
        coarsest = max((dtype, *of_x.floats, *of_y.floats, *inside), key=product_epsilon)
        if coarsest == "float64" and (_is_single(pair.forward, of_x, seed) or _is_single(pair.backward, of_y, seed)):
            coarsest = "float32"
        tolerance = derived_tolerance(coarsest, x.size, math.prod(output_shape)) + error_of_solvers(forward, backward)
    residual = 0.0
    for _ in range(trials):
        x, y = of_x.random(generator), of_y.random(generator)
        residual = max(residual, _residual(pair, x, y, tolerance))
    passed = residual <= tolerance
    diagnosis = ""
    if not passed:
        from keras_adjoint.testing.diagnosis import diagnose  # most tests pass

        diagnosis = diagnose(pair, of_x, of_y, dtype, tolerance, generator)
    return AdjointReport(
        passed=passed,
        residual=residual,
        tolerance=float(tolerance),
        dtype=dtype,
        diagnosis=diagnosis,
        forward=name,
        backward=(name_of_linear if backward is getattr(forward, "source", None) else name_of)(backward),
        input_shape=shape if inputs is None else inputs.shapes,
        output_shape=output_shape if pair.outputs is None else pair.outputs.shapes,
    )


def _check_numbers(*operators: Operator | None) -> None:
    """Raise a ValueError where a compiler traces, so that nothing, or not the weights, has numbers."""
    variables = [v for each in operators if isinstance(each, keras.layers.Layer) for v in each.variables]
    if not current().is_concrete([keras.ops.convert_to_tensor(variable) for variable in variables]):
        raise ValueError(
            "The adjoint test compares numbers, and in code that is being compiled there are none. Run it outside. "
            f"Received: {', '.join(name_of(each) for each in operators if each is not None)}"
        )


def _check_operators(forward: Operator, backward: Operator | None) -> None:
    """Raise a ValueError unless both are layers, models or functions, and there is a way to B if it is not given."""
    for option, operator in (("forward", forward), ("backward", backward)):
        if not callable(operator) and not (option == "backward" and operator is None):
            raise ValueError(f"`{option}` must be a layer, a model or a function. Received: {option}={operator!r}")
    if backward is None and not isinstance(forward, keras.layers.Layer):
        raise ValueError(
            "The adjoint of a layer or model is derived, that of a function is not. Pass it as `backward`, or put the function "
            f"into a `keras.layers.Lambda`. Received: forward={forward!r}, backward=None"
        )


def _residual(pair: Pair, x: Array, y: Array, tolerance: float) -> float:
    """The residual of one pair, of weights that stayed as they were meanwhile: those of A are the same before and after B y.

    Where a model is trained in another thread they may not be, so what does not pass is computed again.
    """
    residual = math.inf
    for _ in range(ATTEMPTS):
        forward_x, backward_y = pair.forward(x), pair.backward(y)
        if backward_y.shape != x.shape:
            return math.inf
        residual = residual_of(forward_x, y, x, backward_y)
        if residual <= tolerance or np.array_equal(pair.forward(x), forward_x, equal_nan=True):
            break
    return residual


def _is_single(operator: Callable[[Array], Array], probe: Probe, seed: int) -> bool:
    """Whether an operator of float64 is linear up to the rounding of float32 alone, in which Keras makes some products."""
    generator = np.random.default_rng(seed)
    x, other = probe.random(generator), probe.random(generator)
    both = operator(x + other)
    error = np.linalg.norm(operator(x) + operator(other) - both)
    fine, coarse = (SAFETY * epsilon(dtype) * np.linalg.norm(both) for dtype in ("float64", "float32"))
    return bool(fine * math.sqrt(x.size) < error < coarse)


def _at_least(least: int, option: str, value: Any) -> int:
    """An option that takes integers from `least` on."""
    number = as_integer(value)
    if number is None or number < least:
        raise ValueError(f"`{option}` must be an integer from {least} on. Received: {option}={value!r}")
    return number


def error_of_solvers(*operators: Any) -> float:
    """By how much layers that stop when they are near enough may be off, relative to what they give."""
    given = [one for one in operators if isinstance(one, keras.layers.Layer)]
    layers = [*given, *(layer for one in given for layer in layers_inside(one))]
    return min(
        MOST_ERROR, max((layer.solver_error() for layer in layers if hasattr(layer, "solver_error")), default=0.0)
    )


def _tolerance(value: Any) -> float | None:
    """The option of that name, which takes a number from 0 on, or `None`."""
    if value is None:
        return None
    if not is_real_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"`tolerance` must be a number from 0 on, or `None`. Received: tolerance={value!r}")
    return float(value)


def name_of_linear(operator: Operator) -> str:
    """The name of an operator, which says so if only its linear part counts."""
    name, is_layer = (
        name_of(operator),
        isinstance(operator, keras.layers.Layer) and not isinstance(operator, keras.Model),
    )
    return f"the linear part of {name}" if is_layer and has_activation(operator) else name


@untraced
def assert_adjoint(forward: Operator, backward: Operator | None = None, **options: Any) -> AdjointReport:
    """Raise an AssertionError with the whole report unless `check_adjoint` passes.

    Args:
        forward: See `check_adjoint`.
        backward: See `check_adjoint`.
        **options: See `check_adjoint`.

    Returns:
        The `AdjointReport`.

    Raises:
        AssertionError: If the test fails.

    Example:

    >>> dense = keras.layers.Dense(3)
    >>> dense.build((None, 5))
    >>> ka.assert_adjoint(dense).passed
    True
    """
    report = check_adjoint(forward, backward, **options)
    if not report:
        raise AssertionError(str(report))
    return report
