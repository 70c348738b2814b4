"""The gradient of a call at the tensors that the encoder recorded there, whatever the call computes."""

from dataclasses import replace
from typing import Any

import keras

from keras_adjoint.keras_internals import call_of, mask_of
from keras_adjoint.layers.activations import ActivationGradient, rectifies
from keras_adjoint.layers.applied_operation import AppliedOperation
from keras_adjoint.layers.arguments import is_symbolic
from keras_adjoint.layers.call_pattern import CallPattern, flat, one_or_list, pattern_of_node
from keras_adjoint.layers.derivative import CallGradient
from keras_adjoint.layers.linear_source import check_owned
from keras_adjoint.layers.own_copy import own_copy
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.backward import BackwardPass
from keras_adjoint.models.calls import Argument, Call, Role
from keras_adjoint.models.graph import Cotangents
from keras_adjoint.models.steps import Steps


def gradient_of_call(
    backward: BackwardPass, call: Call, cotangents: Cotangents, what: str, otherwise: str, role: str = "gradient"
) -> Cotangents:
    """The cotangents of everything that a call acts on, from those of its outputs; `None` for integers.

    Args:
        backward: The backward pass.
        call: The call.
        cotangents: Those of its outputs.
        what: What needs the recorded tensors, for the message.
        otherwise: What to do where nothing is recorded, for the message.
        role: That of the layer.
    """
    like = next(filter(is_symbolic, cotangents))
    ys = [
        backward.zeros(output, like) if y is None else y
        for output, y in zip(call.outputs, cotangents, strict=True)
        if "float" in output.dtype
    ]
    given = tensors_given(call)
    recorded = [backward.recorded(x, call, what, otherwise) for x in given]
    layer = backward.layer(call, role, lambda name: gradient_layer(call, tied=backward.tied, name=name))
    # Keras removes the mask of a tensor when attention has read it, so the recorded tensor may come without.
    masks = [mask_of(x) for x in given]
    options = {"recorded_mask": masks} if any(mask is not None for mask in masks) else {}
    found = dict(zip(layer.places, flat(layer(one_or_list(ys), recorded, **options)), strict=True))
    return [found.get(place) for place in places_of_data(call, given)]


def by_all_tensors(call: Call) -> Call:
    """The same call, acting on what it depends on otherwise as well, unless its derivative by that is zero."""
    arguments = tuple(
        replace(one, role=Role.DATA) if one.role == Role.RECORDED and has_derivative(call.operation, one) else one
        for one in call.arguments
    )
    return call if arguments == call.arguments else replace(call, arguments=arguments, by_all=True)


def has_derivative(operation: keras.Operation, argument: Argument) -> bool:
    """Whether the derivative of an operation by a tensor that it depends on may be another one than zero."""
    if isinstance(operation, Steps) or (isinstance(operation, Tied) and argument.path[0] in STEPWISE):
        return False
    if isinstance(operation, ActivationGradient) and rectifies(operation.source):
        return False
    return "float" in argument.value.dtype


# What tied layers compare, or read the shape of.
STEPWISE = ("switches", "output_size")


def gradient_layer(call: Call, *, tied: bool, name: str) -> CallGradient:
    """The layer that computes the gradient of a call."""
    pattern = pattern_of_call(call)
    if not isinstance(call.operation, keras.layers.Layer):
        dtype = next((x.dtype for x in call.outputs if "float" in x.dtype), call.inputs[0].dtype)
        source = AppliedOperation(call.operation, pattern, dtype=dtype, name=call.operation.name)
        if not tied:
            _check_owned(source, source.own_pattern)
        return CallGradient(source, pattern=source.own_pattern, name=name)
    if not tied:
        _check_owned(call.operation, pattern)
    if tied:
        return CallGradient(call.operation, pattern=pattern, name=name)
    return CallGradient(own_copy(call.operation), pattern=pattern, tied=False, name=name)


def _check_owned(source: keras.layers.Layer, pattern: CallPattern) -> None:
    check_owned(source, [(pattern, [shape[1:] for shape in pattern.input_shapes])])


def pattern_of_call(call: Call) -> CallPattern:
    """How the layer or operation of a call is called there, masks included."""
    dtype = getattr(call.operation, "compute_dtype", None) or call.outputs[0].dtype
    return pattern_of_node(call_of(call.outputs[0]), dtype, masks=True)


def tensors_given(call: Call) -> list[keras.KerasTensor]:
    """The tensors that a call is given, in the order of its pattern."""
    arguments = call_of(call.outputs[0]).arguments
    given: list[Any] = flat((tuple(arguments.args), arguments.kwargs))
    return [x for x in given if is_symbolic(x)]


def places_of_data(call: Call, given: list[keras.KerasTensor]) -> list[int]:
    """For each tensor that a call acts on its number among all that the call is given."""
    free = list(range(len(given)))
    places = []
    for x in call.inputs:
        place = next(number for number in free if given[number] is x)
        free.remove(place)
        places.append(place)
    return places
