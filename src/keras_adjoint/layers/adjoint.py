"""The adjoint of one layer by its rule: tied or copied, vetted where users registered the rule, and its own source."""

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras.layers import Layer

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import calls_of
from keras_adjoint.layers.arguments import depends_on_mask, has_masks, is_beyond_rule
from keras_adjoint.layers.automatic import automatic_adjoint
from keras_adjoint.layers.bias import READS_SOURCE
from keras_adjoint.layers.call_pattern import recorded_patterns
from keras_adjoint.layers.kernel import check_readable
from keras_adjoint.layers.own_copy import own_copy
from keras_adjoint.layers.registered import RegisteredAdjoint, copied_weights, reads_source, ties_by_itself
from keras_adjoint.layers.registry import (
    REGISTERED_BY_USERS,
    RULES,
    apply_rule,
    class_with_rule,
    describe,
    names_option,
)
from keras_adjoint.layers.sizes import recorded_shapes
from keras_adjoint.layers.tied import Tied, exact_source, linear_part
from keras_adjoint.layers.wrapped import activation_of, inside
from keras_adjoint.ops import Shape
from keras_adjoint.ops.dot_test import (
    derived_tolerance,
    evaluate,
    factor_of,
    operator_dtype,
    random_probe,
    residual_of,
)

# Stock layers and models cannot carry their source, so what they are the adjoint of is recorded here. A source reaches its
# adjoint through the graph where that is wired behind it, so neither may be kept alive.
_SOURCES: weakref.WeakKeyDictionary[Layer, weakref.ref[Layer]] = weakref.WeakKeyDictionary()

CALL_FIRST = " Write `y = layer(x)`, and `adjoint(layer)(y)` after it: `adjoint(layer)(layer(x))` asks before it calls."

_UNKNOWN_SIZE = 12  # what an unknown size is tried with


def linear_adjoint(source: Layer, **options: Any) -> Layer:
    """The adjoint of the linear part of a layer, whatever the layer's activation; automatic where the layer has no rule.

    Options as in `adjoint`.
    """
    layer_class = class_with_rule(source)
    if layer_class is None:
        return automatic_adjoint(source, **options)
    check_readable(source, advice=CALL_FIRST)
    original = source
    if not options.get("tied", True):
        source = own_copy(source, keep_bias=options.get("bias", "none") in READS_SOURCE)
    if layer_class in REGISTERED_BY_USERS:
        result = _by_user_rule(RULES[layer_class], source, options)
    else:
        result = apply_rule(RULES[layer_class], source, _for_rule(RULES[layer_class], options))
    if not isinstance(result, Tied):
        record_source(result, source)
    elif source is not original:
        result.keep_recorded(recorded_shapes(original))
    return result


def adjoint_as_called(source: Layer, **options: Any) -> Layer:
    """The adjoint of a layer in the way in which it was called symbolically, if a rule for it knows nothing of that way.

    Options as in `adjoint`.

    Raises:
        NoRuleError: If it was called in ways that are different operators, or by masks that are a part of the operator.
    """
    nodes = [] if isinstance(source, Tied) else calls_of(source)
    beyond = [is_beyond_rule(source, node) for node in nodes]
    masked = [has_masks(node) for node in nodes]
    if not any(beyond + masked) or class_with_rule(source) is None:
        return linear_adjoint(source, **options)
    if any(beyond) and not all(beyond):
        raise NoRuleError(
            f"`{source.name}` was called with constants or options beside its tensors in some calls, and not in others, so it "
            f"stands for several operators. Take the adjoint of a model that holds the call that is meant. Received: "
            f"{describe(source)}"
        )
    if any(beyond):
        return automatic_adjoint(source, patterns=recorded_patterns(source), **options)
    if depends_on_mask(source):
        raise NoRuleError(
            f"`{source.name}` was called with a mask, which is a part of what it computes and no part of the layer. "
            f"`keras_adjoint.autoencoder` of a model reads the mask. For the adjoint without one, take that of a layer that "
            f"was not called with one. Received: {describe(source)}"
        )
    return linear_adjoint(source, **options)


def has_activation(layer: Any) -> bool:
    """Whether a layer ends in an activation, after a part that may be linear."""
    activation = activation_of(layer)
    return activation not in (None, keras.activations.linear) and not isinstance(inside(layer), keras.layers.Activation)


def check_linear(source: Layer, *, advice: str = "") -> None:
    """Raise a NoRuleError, with `advice` in it, if `source` has a rule and computes in integers or ends in an activation."""
    if "float" not in source.compute_dtype and class_with_rule(source) is not None:
        raise NoRuleError(
            f"`{source.name}` computes with integers, where a cast truncates and sums wrap around, so it is not linear. "
            f"Build it with a dtype of floats. Received: dtype={source.compute_dtype!r}, {describe(source)}"
        )
    # Without a rule, a layer is tested as it is.
    if has_activation(source) and None not in (class_with_rule(source), class_with_rule(inside(source))):
        activation = activation_of(source)
        name = getattr(activation, "__name__", activation)
        where = "" if inside(source) is source else f" It is that of the layer inside of `{source.name}`."
        raise NoRuleError(
            f"A layer with an activation is not linear, so it has no adjoint.{where}{advice} Build it with `activation=None` "
            f'and put a `keras.layers.Activation("{name}")` behind it, then take the adjoint of the linear layer alone. '
            f"Received: activation={name!r}, {describe(source)}"
        )


def record_source(adjoint: Layer, source: Layer) -> None:
    """Remember that a stock layer or a model is the adjoint of `source`, for as long as both exist."""
    _SOURCES[adjoint] = weakref.ref(source)


def recorded_source(adjoint: Layer) -> Layer | None:
    """What a stock layer or a model was made the adjoint of, if that still exists."""
    found = _SOURCES.get(adjoint)
    return None if found is None else found()


def original_of(layer: Layer) -> Layer | None:
    """The source of a layer that is its exact adjoint; `None` of one that a policy, say, made from its source."""
    if not isinstance(layer, Tied):
        return recorded_source(layer)
    return exact_source(layer)


def probe_shape(source: Layer, recorded: Sequence[Shape] | None = None) -> tuple[int, ...] | None:
    """An input shape to try a layer with: a recorded one, small where it is unknown; or `None`."""
    shapes = recorded if recorded is not None else recorded_shapes(source)
    if not shapes:
        return None
    batch, *rest = shapes[0]
    return (batch or 2, *(size or _UNKNOWN_SIZE for size in rest))


def _for_rule(make: Callable[..., Layer], options: dict[str, Any]) -> dict[str, Any]:
    """Options as a rule takes them, which need not know that it is given a copy."""
    knows = options.get("tied", True) or names_option(make, "tied")
    return options if knows else {option: value for option, value in options.items() if option != "tied"}


def _by_user_rule(make: Callable[..., Layer], source: Layer, options: dict[str, Any]) -> Layer:
    """What a registered rule returns, once tested, and tied to the source if it reads that, or owning it if it is a copy."""
    tied = options.get("tied", True)
    for_rule = _for_rule(make, options)
    result = apply_rule(make, source, for_rule)
    y, dtype = _check_user_rule(source, result, make, tied=tied)
    owns_ties = not tied and bool(source.weights) and ties_by_itself(result)
    if not reads_source(result, source, y, dtype) and not owns_ties:
        return result
    name = options.get("name")
    for_rule = {k: v for k, v in for_rule.items() if k != "name"}
    made = RegisteredAdjoint(source, inner=result, rule_options=for_rule, tied=tied, name=name)
    made.build(
        (None, *y.shape[1:])
    )  # as the test has built what the rule returned, so that its weights are found in a file
    return made


def _check_user_rule(source: Layer, result: Layer, make: Callable[..., Layer], *, tied: bool) -> tuple[np.ndarray, str]:
    """Refuse a registered rule whose result is not the adjoint of `source`; what the result was called with, and its dtype.

    A tied one has to be its adjoint after training as well.
    """
    shape = probe_shape(source)
    if shape is None:
        raise NoRuleError(
            f"A registered rule is tested before it is used, for which the input shape must be known. Call the layer once, "
            f"or build it with `source.build(input_shape)`. Received: {describe(source)}"
        )
    dtype = operator_dtype(source)
    generator = np.random.default_rng(0)

    def random_pair() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        x = random_probe(shape, dtype, generator)
        forward_x = evaluate(linear_part(source), x, dtype)
        y = random_probe(forward_x.shape, dtype, generator)
        return x, y, forward_x, evaluate(result, y, dtype)

    x, y, forward_x, backward_y = random_pair()
    if backward_y.shape != x.shape:
        reason = f"it returns shape {backward_y.shape} for an input of shape {x.shape}"
    else:
        residual = residual_of(forward_x, y, x, backward_y)
        tolerance = derived_tolerance(dtype, x.size, forward_x.size)
        if residual <= tolerance:
            copies = copied_weights(result, linear_part(source), source.weights, x, y, dtype) if tied else []
            if copies:
                raise NoRuleError(
                    f"The rule registered for `{type(source).__name__}` returns a layer that does not follow "
                    f"{', '.join(f'`{weight.name}`' for weight in copies)} of its source, so that it would no longer be the "
                    f"adjoint once that is trained. Return a layer that reads the variable in its `call`, "
                    f"`keras_adjoint.adjoint` of a layer inside, or a copy where `tied=False` is asked for. "
                    f"Received: {describe(source)}"
                )
            return y, dtype
        reason = (
            "numbers that are not finite come out"
            if math.isinf(residual)
            else f"its residual is {residual:.1e}, and rounding explains no more than {tolerance:.1e}"
        )
        factor = factor_of([random_pair() for _ in range(4)], tolerance)
        reason += "" if factor is None else f". What it returns is {factor:.4g} times the adjoint"
    name = getattr(make, "__name__", "")
    name = name if name.isidentifier() else "rule"  # of a lambda
    raise NoRuleError(
        f"The rule registered for `{type(source).__name__}` fails the adjoint test, so it is not used: {reason}. "
        f"`keras_adjoint.check_adjoint(layer, {name}(layer))` looks for the mistake. Register the corrected rule then. "
        f"Received: {describe(source)}"
    )
