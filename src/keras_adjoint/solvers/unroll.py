"""`unroll`: an iterative solver as a network of a given number of steps, with numbers in it that can be trained."""

from typing import Any

import keras
from keras import tree

from keras_adjoint.errors import one_of
from keras_adjoint.layers.options import boolean, name_or_none
from keras_adjoint.operators.linear_map import HALF
from keras_adjoint.operators.model_operator import operator
from keras_adjoint.recursion import deep_recursion
from keras_adjoint.solvers import arguments, unroll_options
from keras_adjoint.solvers.fixed_point import FixedPoint
from keras_adjoint.solvers.samples import FiniteSamples, OfFiniteSamples
from keras_adjoint.solvers.schemes import SCHEMES, Parts
from keras_adjoint.solvers.unroll_options import Options


def unroll(
    layer: keras.layers.Layer,
    steps: int | None = None,
    *,
    method: str = "ista",
    weight: float | None = None,
    prox: Any = "soft",
    learn: Any = ("step", "threshold"),
    tied: bool | str = True,
    fixed_point: bool = False,
    tolerance: float | None = None,
    max_steps: int | None = None,
    start: keras.layers.Layer | None = None,
    size: Any = None,
    linear_part: bool = False,
    lower: float | None = None,
    upper: float | None = None,
    data_format: str | None = None,
    inner_steps: int | None = None,
    name: str | None = None,
) -> keras.Model:
    """A Functional model y ↦ x that minimises ½‖A x − y‖² + weight·R(x) by some steps, with the layer's own kernel.

    A is the linear part of the layer; a bias is no part of it. The steps are layers: those that apply A and Aᵀ are tied to
    the kernel, and the others have what is trained beside it. A step is θ/L² long, where L is the bound of A with the kernel
    as it is in this call, and θ is a sigmoid, so that no step is too long for the theory, however the kernel changes. What R is
    multiplied by stays positive likewise.

    Args:
        layer: A built linear layer or model, possibly with a bias, which is left out.
        steps: How many there are, by default 16.
        method: "ista", proximal gradients, "fista", with momentum, "primal_dual" (Chambolle and Pock), or "admm", linearised.
            The last two split "tv" off, and need no inner steps.
        weight: How much R counts. "soft", "soft_nonnegative" and "tv" need it; for a function it is 1 by default.
        prox: R by its name: "soft" (the sum of absolute values), "soft_nonnegative" (the same of x that are not negative),
            "nonnegative" or "box" (0 between the limits, infinite outside), "tv" (total variation); or a function
            `prox(x, t)`, the z that minimises ½‖z − x‖² + t·R(z), with t = weight·θ/L²; or a Keras model in the place of
            that, one for all steps or a list of one for each.
        learn: What is trained, of every step by itself: "step" (θ, which begins at 0.9, and is 1 if it is not trained; of the
            last two methods a ratio as well), "threshold" (a factor of the weight), "momentum" (of "fista").
        tied: Whether A and Aᵀ have the kernel of the layer in every step. With "forward" A has; each step has a kernel of
            its own for Aᵀ, a copy of the layer to begin with. With `False` each step has two, one for A and one for Aᵀ. Then
            L is the bound that the kernel has when the model is made. Copies are trained, whether the layer is frozen or not.
        fixed_point: Whether to take steps until x no longer changes, in place of a given number. The gradient is that of the
            solution, for one linear solve, and takes no memory for steps. Of what is trained, the threshold is left.
        tolerance: By how much a step may still change x then, relative to the first one. By default 1e-5, in float64 1e-10.
        max_steps: The most steps then. By default 1000.
        start: A layer or model y ↦ x, where the steps begin, such as `LeastSquares(layer, ridge=...)`. By default at zero.
        size: The size that the layer takes, without the batch axis, if it takes several.
        linear_part: Whether to leave out an activation as well.
        lower: The smallest number in the box, by default 0.
        upper: The largest one, by default 1.
        data_format: Where x has its channels, along which "tv" takes no differences. By default as the layer says.
        inner_steps: Of the iteration by which "tv" is lowered in every step of "ista" and "fista", by default 20.
        name: Of the model.

    Returns:
        A Functional model.

    Raises:
        NoRuleError: If the layer is not linear, or no bound of it is known.
        SizeError: If its size is not known.
        ValueError: If an option has a value that it does not take, or would change nothing.

    Example:

    >>> dictionary = keras.layers.Dense(8, use_bias=False)
    >>> dictionary.build((None, 20))
    >>> encoder = ka.unroll(dictionary, 4, method="fista", weight=0.1)
    >>> encoder(np.ones((2, 8), "float32")).shape
    (2, 20)
    """
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(f"`unroll` takes a layer or model. Received: {layer!r} of type {type(layer).__name__}")
    A = operator(layer, size=size, linear_part=boolean("linear_part", linear_part))
    method, count = one_of("method", method, tuple(unroll_options.METHODS)), unroll_options.steps_from(steps)
    tied, is_solved = unroll_options.tied_from(tied), boolean("fixed_point", fixed_point)
    penalty = unroll_options.prox_from(prox, 1 if is_solved else count)
    limits = {"lower": lower, "upper": upper, "inner_steps": inner_steps}
    unroll_options.check_taken(penalty, method, weight=weight, data_format=data_format, **limits)
    options = Options(
        prox=penalty,
        weight=unroll_options.weight_from(weight, penalty),
        learn=unroll_options.learn_from(learn, method),
        details=unroll_options.details_from(A, penalty, data_format, **limits),
    )
    begin = unroll_options.start_from(start)
    y = A.out_space.inputs(A.dtype)
    if is_solved:
        unroll_options.check_solved(steps, tied, begin)
        parts = Parts(layer, A, options.without_steps(), tied, size=size, linear_part=linear_part)
        tolerance, max_steps = arguments.tolerance_for(tolerance, A.precision), arguments.steps_from(max_steps)
        x = fixed_point_layer(parts, method, y, tolerance, max_steps)(y)
    else:
        unroll_options.check_unrolled(tolerance, max_steps)
        parts = Parts(layer, A, options, tied, begin, size=size, linear_part=linear_part)
        scheme = SCHEMES[method](parts)
        given, is_finite = FiniteSamples(dtype=A.precision, name=f"{layer.name}_finite_samples")(y)
        bound, state = parts.bound(given), scheme.begin(given)
        for number in range(count):
            state = scheme.step(number, state, given, bound)
        x = OfFiniteSamples(dtype=A.precision, name=f"{layer.name}_of_finite_samples")(state[0], is_finite)
    if A.dtype in HALF:
        x = tree.map_structure(lambda leaf: keras.layers.Identity(dtype=A.dtype)(leaf), x)
    name = name_or_none("name", name) or f"{layer.name}_unrolled"
    with deep_recursion():  # Keras walks the graph by recursion
        return keras.Model(y, x, name=name)


def fixed_point_layer(parts: Parts, method: str, y: Any, tolerance: float, max_steps: int) -> FixedPoint:
    """The layer that takes steps of a method until nothing changes."""
    # Momentum changes no fixed point.
    scheme, precision = SCHEMES["ista" if method == "fista" else method](parts), parts.A.precision
    state = tree.map_structure(lambda part: keras.Input(part.shape[1:], dtype=precision), scheme.begin(y))
    given = parts.A.out_space.inputs(precision)
    number = keras.Input(batch_shape=(1,), dtype=precision)
    after = scheme.step(0, state, given, number)
    name = f"{parts.source.name}_fixed_point"
    cell = keras.Model([*tree.flatten(state), *tree.flatten(given), number], tree.flatten(after), name=f"{name}_step")
    return FixedPoint(
        cell,
        accelerated=method == "fista",
        tolerance=tolerance,
        max_steps=max_steps,
        dtype=precision,
        name=name,
    )
