"""`certify`: the Lipschitz constant of every call of a network, and a bound for the whole.

The walk finds for every tensor by how much it lengthens a difference of the inputs, all of them together. In compositions
constants multiply, in sums they add up, and of parts side by side the root of the sum of squares counts. Of tensors that depend
on different inputs it is less: of a sum that root, and side by side the largest one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Graph, trace
from keras_adjoint.operators.call_constants import How, Step, step_of
from keras_adjoint.operators.certificate import CallConstant, Certificate
from keras_adjoint.operators.classifier import classifier_of
from keras_adjoint.operators.model_operator import graph_at
from keras_adjoint.operators.on_host import on_host
from keras_adjoint.operators.operator import ABOVE


@dataclass(frozen=True)
class Reach:
    """By how much a tensor lengthens a difference of the inputs.

    Attributes:
        constant: That factor, at most.
        inputs: The numbers of the inputs that it depends on.
    """

    constant: float
    inputs: frozenset[int]


def certify(model: keras.Model, input_norm: int = 2, *, size: Any = None) -> Certificate:
    """A bound of the Lipschitz constant of a network, and the radii that it certifies.

    No difference ‖f(x) − f(z)‖ is more than `bound` times ‖x − z‖, in the 2-norm of all numbers of a sample, of all inputs and
    outputs together. It is put together from the constant of every call, so that it may be far above the smallest one: for
    networks of `Lipschitz` layers it is close, and for others often too large to be of use. It is the network at inference,
    with the kernels of this moment, in exact arithmetic.

    Args:
        model: A Functional or built Sequential model.
        input_norm: 2, the one norm in which the constants are known.
        size: The shape of what the model takes, without the batch axis, where that is unknown; see `operator`.

    Returns:
        A `Certificate`: `bound`, the `calls` with their constants, those that have none as `unknown`, and `radius(outputs)`.

    Raises:
        NoRuleError: If the model is subclassed, or not built.
        SizeError: If a size is not known.
        ValueError: If `model` is no model, or the norm another one.

    Example:

    >>> inputs = keras.Input((4,))
    >>> hidden = ka.Lipschitz(keras.layers.Dense(8, activation="relu"))(inputs)
    >>> model = keras.Model(inputs, keras.layers.Dense(3, kernel_initializer="identity")(hidden))
    >>> certificate = ka.certify(model)
    >>> certificate.bound <= 1.01, [call.how for call in certificate.calls]
    (True, ['Lipschitz', 'bound'])
    >>> certificate.radius(np.array([[2.0, 0.0, 1.0]])) > 0.7  # of the input that gives these logits
    array([ True])
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`certify` takes a Functional or Sequential Keras model; of a layer, `keras_adjoint.operator(layer).bound()` is "
            f"the constant of its linear part. Received: {model!r} of type {type(model).__name__}"
        )
    if isinstance(input_norm, bool) or input_norm != 2:
        raise ValueError(
            f"The constants are known in the 2-norm. Pass `input_norm=2`, or leave it out. Received: input_norm={input_norm!r}"
        )
    trace(model)  # raises for what cannot be walked
    on_host(ops.zeros(()), "A certificate")
    return certified(graph_at(model, size), model.name)[0]


def certified(
    graph: Graph, name: str, advance: Callable[[], Any] = lambda: None
) -> tuple[Certificate, dict[Call, Step]]:
    """(the `Certificate` of a graph whose sizes are known, the `Step` of every call that its outputs depend on).

    Args:
        graph: The graph.
        name: The name of the model.
        advance: Called after every call.
    """
    needed = _needed(graph)
    reach = {id(x): Reach(1.0, frozenset([number])) for number, x in enumerate(graph.inputs)}
    steps: dict[Call, Step] = {}
    found: dict[Any, Step] = {}
    for call in graph.calls:
        if id(call) in needed:
            key = _identity(call)
            if key not in found:
                found[key] = step_of(call)
            steps[call] = found[key]
            given = _after(call, steps[call], [reach[id(x)] for x in call.inputs])
            reach.update((id(y), given) for y in call.outputs)
        advance()
    whole = _side_by_side([reach.get(id(y), Reach(0.0, frozenset())) for y in graph.outputs])
    constants = {tensor: each.constant for tensor, each in reach.items()}
    rows = tuple(_row(call, step) for call, step in steps.items())
    classifier = classifier_of(graph.outputs, steps, constants, whole.constant)
    return Certificate(name, 2, whole.constant, rows, classifier), steps


def _needed(graph: Graph) -> set[int]:
    """The calls whose results the outputs are computed from, by `id`; masks that make no difference are not."""
    wanted, needed = {id(y) for y in graph.outputs}, set()
    for call in reversed(graph.calls):
        if any(id(y) in wanted for y in call.outputs):
            needed.add(id(call))
            wanted.update(id(x) for x in call.inputs)
    return needed


def _identity(call: Call) -> Any:
    """Calls of a layer on tensors of the same shapes are alike, if nothing else is passed."""
    alone = not call.recorded and not call.constants
    shapes = tuple(tuple(x.shape) for x in call.inputs)
    return (id(call.operation), shapes, call.training) if alone else id(call)


def _after(call: Call, step: Step, given: Sequence[Reach]) -> Reach:
    """That of what a call gives, for those of what it takes."""
    if call.recorded and step.how == How.NONE:
        return Reach(math.inf, _together(given))  # a condition, whose own constant is not known
    terms = [
        Reach(_product(factor, each.constant), each.inputs) for factor, each in zip(step.factors, given, strict=True)
    ]
    return _added(terms) if step.adds else _side_by_side(terms)


def _side_by_side(parts: Sequence[Reach]) -> Reach:
    constants = [part.constant for part in parts]
    found = max(constants, default=0.0) if _are_apart(parts) else _root(constants)
    return Reach(found, _together(parts))


def _added(parts: Sequence[Reach]) -> Reach:
    constants = [part.constant for part in parts]
    return Reach(_root(constants) if _are_apart(parts) else sum(constants) * ABOVE, _together(parts))


def _together(parts: Sequence[Reach]) -> frozenset[int]:
    return frozenset().union(*(part.inputs for part in parts))


def _are_apart(parts: Sequence[Reach]) -> bool:
    """Whether no input is one that two tensors depend on."""
    return sum(len(part.inputs) for part in parts) == len(_together(parts))


def _root(constants: Sequence[float]) -> float:
    return constants[0] if len(constants) == 1 else math.hypot(*constants) * ABOVE


def _product(factor: float, constant: float) -> float:
    """What is multiplied by zero is zero, whatever there is before it."""
    return 0.0 if 0.0 in (factor, constant) else factor * constant * (1.0 if 1.0 in (factor, constant) else ABOVE)


def _row(call: Call, step: Step) -> CallConstant:
    return CallConstant(
        layer=call.path or call.operation.name,
        type=type(call.operation).__name__,
        inputs=tuple(tuple(x.shape[1:]) for x in call.inputs),
        outputs=tuple(tuple(y.shape[1:]) for y in call.outputs),
        constant=step.constant,
        how=step.how.value,
        reason=step.reason,
    )
