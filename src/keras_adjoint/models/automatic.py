"""The automatic adjoints of operations of `keras.ops` that have no rule but prove to be linear."""

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import call_of
from keras_adjoint.layers.applied_operation import AppliedOperation
from keras_adjoint.layers.automatic import AutomaticAdjoint, check_source
from keras_adjoint.layers.call_pattern import pattern_of_node
from keras_adjoint.layers.linearity import NotLinear
from keras_adjoint.models.calls import Call


def adjoint_of_operation(call: Call, name: str) -> AutomaticAdjoint:
    """The adjoint of an operation as it is called in a graph, with its constants.

    Raises:
        NoRuleError: If the operation is not linear in the tensors that it acts on.
    """
    kind = type(call.operation).__name__
    try:
        if call.recorded:
            raise NotLinear("what it does depends on other tensors of the model")
        pattern = pattern_of_node(call_of(call.outputs[0]), call.inputs[0].dtype)
        source = AppliedOperation(call.operation, pattern, dtype=call.inputs[0].dtype, name=call.operation.name)
        adjoint = AutomaticAdjoint(source, patterns=[source.own_pattern], name=name)
        check_source(adjoint)
    except NotLinear as found:
        raise NoRuleError(
            f"No adjoint is known for the operation `{kind}` at `{call.place}`: it has no rule, and it is not linear: {found}. "
            f"Write it as a layer, whose adjoint can be taught with `@keras_adjoint.register_rule`. Received: {kind}"
        ) from None
    return adjoint
