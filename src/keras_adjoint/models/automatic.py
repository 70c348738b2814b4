"""The automatic adjoints of calls in a graph: of layers and operations that have no rule but prove to be linear."""

from typing import Any

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import call_of
from keras_adjoint.layers.applied_operation import AppliedOperation
from keras_adjoint.layers.arguments import is_beyond_rule
from keras_adjoint.layers.automatic import AutomaticAdjoint, automatic_adjoint
from keras_adjoint.layers.call_pattern import CallPattern, pattern_of_node, recorded_patterns
from keras_adjoint.layers.linear_source import check_calls, check_owned, prober
from keras_adjoint.layers.linearity import NotLinear, NotTested
from keras_adjoint.layers.registry import class_with_rule
from keras_adjoint.models.calls import Call
from keras_adjoint.ops import Shape


def pattern_of(call: Call) -> CallPattern:
    """How the layer or operation of a call is called there, without its masks."""
    dtype = getattr(call.operation, "compute_dtype", None) or call.outputs[0].dtype
    return pattern_of_node(call_of(call.outputs[0]), dtype)


def is_automatic(call: Call) -> bool:
    """Whether no rule holds for a call of a layer."""
    return class_with_rule(call.operation) is None or is_beyond_rule(call.operation, call_of(call.outputs[0]))


def operator_of(call: Call) -> str:
    """What tells the calls of a layer apart that are different operators, as those with other constants are."""
    is_layer = isinstance(call.operation, keras.layers.Layer)
    return pattern_of(call).operator if is_layer and is_automatic(call) else ""


def is_zero_at_zero(call: Call) -> bool:
    """Whether a layer or operation without a rule, as it is called in a graph, gives zeros for zeros."""
    source, pattern = as_layer(call)
    try:
        found = prober(source, pattern, shapes_in(pattern)).of_zeros()
    except NotLinear:
        return False
    return not any(y.any() for y in found)


def check_linear_call(call: Call) -> None:
    """Raise a NotLinear unless a layer or operation without a rule is linear as it is called in a graph."""
    if call.recorded and not isinstance(call.operation, keras.layers.Layer):
        raise NotLinear("what it does depends on other tensors of the model")
    source, pattern = as_layer(call)
    check_calls(source, [(pattern, shapes_in(pattern))])


def why_not_tested(call: Call) -> str:
    """Why it cannot be tested whether a layer is linear as it is called in a graph; "" if it can."""
    if not isinstance(call.operation, keras.layers.Layer):
        return ""
    try:
        check_linear_call(call)
    except NotTested as found:
        return str(found)
    except NotLinear:
        pass
    return ""


def adjoint_of_call(call: Call, **options: Any) -> AutomaticAdjoint:
    """The adjoint of a layer without a rule as it is called in a graph, and wherever else it is called alike."""
    own = pattern_of(call)
    alike = [pattern for pattern in recorded_patterns(call.operation) if pattern.operator == own.operator]
    return automatic_adjoint(call.operation, patterns=alike or [own], **options)


def applied(call: Call) -> AppliedOperation:
    """The operation of a call with its constants, as a layer."""
    pattern = pattern_of_node(call_of(call.outputs[0]), call.inputs[0].dtype)
    return AppliedOperation(call.operation, pattern, dtype=call.inputs[0].dtype, name=call.operation.name)


def as_layer(call: Call) -> tuple[keras.layers.Layer, CallPattern]:
    """(the layer of a call, or its operation as one; how it is called there)."""
    if isinstance(call.operation, keras.layers.Layer):
        return call.operation, pattern_of(call)
    source = applied(call)
    return source, source.own_pattern


def shapes_in(pattern: CallPattern) -> list[Shape]:
    """The shapes of the tensors of a pattern, without the batch axis."""
    return [shape[1:] for shape in pattern.input_shapes]


def adjoint_of_operation(call: Call, name: str, *, tied: bool = True) -> AutomaticAdjoint:
    """The adjoint of an operation as it is called in a graph, with its constants.

    Raises:
        TieError: If it is not to be tied, and a constant is the variable of a layer.
        NoRuleError: If the operation is not linear in the tensors that it acts on.
    """
    kind = type(call.operation).__name__
    try:
        check_linear_call(call)
    except NotLinear as found:
        raise NoRuleError(
            f"No adjoint is known for the operation `{kind}` at `{call.place}`: it has no rule, and {found}. "
            f"Write it as a layer, whose adjoint can be taught with `@keras_adjoint.register_rule`. Received: {kind}"
        ) from None
    source = applied(call)
    adjoint = AutomaticAdjoint(source, patterns=[source.own_pattern], name=name)
    if not tied:
        check_owned(source, adjoint.calls())
    return adjoint


def check_own_constants(call: Call) -> None:
    """Raise a TieError if a constant that an operation is called with is the variable of a layer."""
    source = applied(call)
    check_owned(source, [(source.own_pattern, shapes_in(source.own_pattern))])
