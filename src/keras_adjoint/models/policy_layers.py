"""What each policy puts in the place of what it decides about: one function per policy, one table entry per choice.

All of them take the backward pass, the call, the cotangent of its output, and the choice, and return the cotangents of the
call's inputs.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
from keras import tree

from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import call_of, producer_of
from keras_adjoint.layers.activations import ActivationGradient, PreActivation, rectifies
from keras_adjoint.layers.adjoint import linear_adjoint
from keras_adjoint.layers.arguments import is_symbolic
from keras_adjoint.layers.global_pooling import AdjointGlobalAveragePooling, BroadcastGlobalPooling
from keras_adjoint.layers.kernel import float_policy
from keras_adjoint.layers.merge import sum_to
from keras_adjoint.layers.norm import (
    AdjointAffinePart,
    AdjointBatchNormalization,
    AdjointNormalization,
    AdjointRescaling,
)
from keras_adjoint.layers.own_copy import own_copy
from keras_adjoint.layers.pooling import AdjointAveragePooling, SpreadPooling
from keras_adjoint.layers.registry import describe, nearest_class
from keras_adjoint.layers.selection import ADAPTIVE_MAX_POOLS, SpreadAdaptivePooling, averaging_like, is_selection
from keras_adjoint.layers.sizes import recorded_shapes
from keras_adjoint.layers.switches import AdjointGlobalMaxPooling, AdjointMaxPooling
from keras_adjoint.layers.tied import Tied
from keras_adjoint.layers.wrapped import activation_of, inside, is_distributed
from keras_adjoint.layers.wrappers import around
from keras_adjoint.models.backward import PART, BackwardPass
from keras_adjoint.models.call_gradient import gradient_of_call
from keras_adjoint.models.calls import Call, Role
from keras_adjoint.models.graph import Cotangents
from keras_adjoint.models.policies import (
    ACTIVATION_OPERATIONS,
    EXTREMAL_OPERATIONS,
    WITHOUT_RECORDS,
    ends_in_activation,
    hints,
    keeps_shape,
    policy_of_class,
)

Replacement: TypeAlias = Callable[[BackwardPass, Call, keras.KerasTensor, Any], Cotangents]

# Normalisations and preprocessing, with the layer that multiplies by their scale or undoes it. Only of batch normalisation,
# which reads no statistics of its input, that is the adjoint.
SCALINGS = {
    keras.layers.BatchNormalization: AdjointBatchNormalization,
    keras.layers.LayerNormalization: AdjointAffinePart,
    keras.layers.GroupNormalization: AdjointAffinePart,
    keras.layers.RMSNormalization: AdjointAffinePart,
    keras.layers.Normalization: AdjointNormalization,
    keras.layers.Rescaling: AdjointRescaling,
}

MAX_POOLS = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
GLOBAL_MAX_POOLS = (keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D, keras.layers.GlobalMaxPooling3D)
GLOBAL_POOLS = (
    *GLOBAL_MAX_POOLS,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)

# Functions that squeeze numbers into a small range, which is what makes a factor a gate.
SQUEEZING = {"sigmoid", "hard_sigmoid", "softmax", "tanh", "hard_tanh"}


def new_one_like(backward: BackwardPass, call: Call, role: str) -> keras.layers.Layer:
    """A new layer from the config of the one that was called, trained on its own."""

    def make(name: str) -> keras.layers.Layer:
        layer = type(call.operation).from_config({**call.operation.get_config(), "name": name})
        layer.trainable = True  # even if the encoder is frozen
        return layer

    return backward.layer(call, role, make)


def reading(
    backward: BackwardPass, call: Call, role: str, layer_class: type[Tied], **options: Any
) -> keras.layers.Layer:
    """A layer that reads the variables of the one that was called, or copies of them; at every time step if that was."""
    operation = call.operation

    def make(name: str) -> keras.layers.Layer:
        source, own = inside(operation), None if is_distributed(operation) else name
        if backward.tied:
            layer = layer_class(source, name=own, **options)
        else:
            layer = layer_class(own_copy(source), tied=False, name=own, recorded=recorded_shapes(source), **options)
        return around(layer, operation, name=name)

    return backward.layer(call, role, make)


def missing(call: Call, policy: str, choice: Any) -> NoRuleError:
    return NoRuleError(
        f'No layer is known for {policy}="{choice}" in the place of `{call.place}`. {hints(call)}. '
        f"Received: {describe(call.operation)}"
    )


def undo(
    backward: BackwardPass,
    policy: str,
    call: Call,
    cotangents: Cotangents,
    choice: Any,
    wanted: list[keras.KerasTensor],
) -> Cotangents:
    """What a policy puts in the place of a call, or of the activation that it ends in.

    Args:
        backward: The backward pass.
        policy: The policy's name.
        call: The call.
        cotangents: Those of the call's outputs.
        choice: What the policy chose.
        wanted: The tensors whose cotangents are asked for: the call's inputs, or its outputs before their activation.

    Raises:
        NoRuleError: If the choice is not defined for the call, or gives tensors of other shapes.
    """
    (y, *others), like = cotangents, call.outputs[:1]
    if wanted is not call.outputs and is_gradient_of_call(policy, call, choice):
        return recorded_gradient(policy, backward, call, cotangents, choice)
    fits = not others and (choice == "gradient" or policy in CHANGES_SHAPES or may_be_of(like, wanted))
    found = UNDO[policy](backward, call, y, choice) if fits and y is not None else []
    if may_be_of(found, wanted):
        return found
    given = ", ".join(str(tuple(y.shape)) for y in call.outputs)
    taken = ", ".join(str(tuple(x.shape)) for x in wanted)
    raise NoRuleError(
        f'`{policy}="{choice}"` gives no cotangent of the right shape: `{call.place}` makes {given} of {taken}. '
        f"{hints(call)}. Received: {describe(call.operation)}"
    )


# Policies whose choices may change the shape. Those of others keep tensors as they are, or call such a layer again.
CHANGES_SHAPES = ("pooling", "gates")


def may_be_of(cotangents: Cotangents, tensors: list[keras.KerasTensor]) -> bool:
    """Whether cotangents have the shapes of tensors, as far as sizes are known."""

    def fits(y: keras.KerasTensor | None, x: keras.KerasTensor) -> bool:
        return y is None or (
            len(y.shape) == len(x.shape)
            and all(None in pair or pair[0] == pair[1] for pair in zip(y.shape, x.shape, strict=True))
        )

    return len(cotangents) == len(tensors) and all(map(fits, cotangents, tensors))


def recorded_for(
    policy: str, backward: BackwardPass, tensor: keras.KerasTensor, call: Call, what: str
) -> keras.KerasTensor:
    """An activation of the forward pass that a policy needs."""
    return backward.recorded(tensor, call, what, without_records(policy))


def without_records(policy: str) -> str:
    """What to choose where nothing is recorded, for a message."""
    return "choose " + " or ".join(f'`{policy}="{choice}"`' for choice in WITHOUT_RECORDS[policy])


# --- gradients of whatever was called


def is_gradient_of_call(policy: str, call: Call, choice: Any) -> bool:
    """Whether a choice is the gradient of all that a call computes from all that it takes.

    Of an activation, which makes one tensor of one and has no constants, less needs to be recorded, see below.
    """
    if policy == "activation":
        simple = len(call.inputs) == len(call.outputs) == 1 and not options_of_call(call)
        return choice == "gradient" and not (
            simple and is_activation(call.operation) and not is_distributed(call.operation)
        )
    if policy == "norm":
        return (
            choice == "adjoint"
            and nearest_class(inside(call.operation), SCALINGS) is not keras.layers.BatchNormalization
        )
    if policy == "pooling":
        return choice == "switches" and selects(call.operation)
    return policy == "gates" and choice == "gradient"


def is_activation(operation: keras.Operation) -> bool:
    """Whether a layer or operation is known to be an activation, rather than declared to be one."""
    return isinstance(operation, ACTIVATION_OPERATIONS) or policy_of_class(operation) == "activation"


def recorded_gradient(
    policy: str, backward: BackwardPass, call: Call, cotangents: Cotangents, choice: Any
) -> Cotangents:
    """The gradient of a call at what the encoder recorded."""
    otherwise = without_records(policy) if keeps_shape(call) or policy in CHANGES_SHAPES else PART
    return gradient_of_call(backward, call, cotangents, f'{WHAT[policy]} by "{choice}"', otherwise)


WHAT = {"activation": "an activation", "norm": "a normalisation", "pooling": "max pooling", "gates": "a gate"}


# --- activations


def activation(backward: BackwardPass, call: Call, y: keras.KerasTensor, choice: Any) -> Cotangents:
    """In the place of an activation, or of the one that a layer ends in."""
    if choice == "linear":
        return [y]
    if choice == "same":
        return [same_activation(backward, call, y)]
    if choice == "deconvnet" or (choice == "guided" and backward.records):  # without records that is what is said first
        check_rectifier(backward, call, choice)
    if choice in ("gradient", "guided"):
        return [activation_gradient(backward, call, y, choice)]
    function = "relu" if choice == "deconvnet" else choice
    return [activation_layer(backward, call, function, y.dtype)(y)]


def check_rectifier(backward: BackwardPass, call: Call, choice: str) -> None:
    """Raise unless a call ends in a rectifier, for which alone "deconvnet" and "guided" are defined."""
    own = ends_in_activation(call.operation)
    if rectifies(activation_of(call.operation) if own else inside(call.operation)):
        return
    gradient = 'For other activations use `activation="gradient"`, or leave' if backward.records else "Leave"
    raise NoRuleError(
        f'"{choice}" is defined for rectifiers: ReLU, and ReLU with a maximum or a threshold. {gradient} this one out: '
        f'`activation={{{call.operation.name!r}: "linear", "default": "{choice}"}}`. '
        f"Received: {describe_activation(call.operation)}"
    )


def describe_activation(operation: keras.Operation) -> str:
    activation = activation_of(operation)
    name = f", activation={getattr(activation, '__name__', activation)!r}" if activation is not None else ""
    return f"{describe(operation)}{name}"


def activation_gradient(backward: BackwardPass, call: Call, y: keras.KerasTensor, choice: str) -> keras.KerasTensor:
    """Jᵀ y for the activation of a call, at what the encoder recorded: the activation's output where that tells J.

    Elsewhere it is the input. What a layer computes before its own activation is in no graph, so it is computed once more.
    """
    layer = backward.layer(call, choice, lambda name: gradient_layer(backward, call, choice, y.dtype, name))
    what = f'an activation by "{choice}"'
    if layer.reads_output:
        return layer(y, recorded_for("activation", backward, call.outputs[0], call, what))
    recorded = recorded_for("activation", backward, call.inputs[0], call, what)
    if ends_in_activation(call.operation):
        pre = backward.layer(call, "preactivation", lambda name: PreActivation(call.operation, name=name))
        recorded = pre(recorded)
    return layer(y, recorded, recorded_mask=next(iter(call.recorded), None))


def options_of_call(call: Call) -> list[Any]:
    """Constants that a call was given and that its operation does not know without it, as in `ops.maximum(x, 0.0)`."""
    constants = [argument for argument in call.arguments if argument.role == Role.CONSTANT]
    return [one.value for one in constants if one.value is not None and one.path[0] != "training"]


def gradient_layer(backward: BackwardPass, call: Call, choice: str, dtype: Any, name: str) -> ActivationGradient:
    operation = call.operation
    options = {"guided": choice == "guided", "dtype": dtype, "name": name}
    if ends_in_activation(operation) or not isinstance(operation, keras.layers.Layer):
        function = activation_of(operation) if ends_in_activation(operation) else operation
        return ActivationGradient(keras.layers.Activation(function, dtype=dtype), tied=False, **options)
    if backward.tied:
        return ActivationGradient(operation, **options)
    return ActivationGradient(own_copy(operation), tied=False, **options)


def same_activation(backward: BackwardPass, call: Call, y: keras.KerasTensor) -> keras.KerasTensor:
    operation = call.operation
    if not isinstance(operation, keras.layers.Layer):
        return call_again(call, y)
    if ends_in_activation(operation) or nearest_class(operation, (keras.layers.Activation,)):
        return activation_layer(backward, call, activation_of(operation), float_policy(operation))(y)
    return new_one_like(backward, call, "mirror")(y)


def call_again(call: Call, y: keras.KerasTensor) -> keras.KerasTensor:
    """What the operation of a call, which holds nothing, gives for another tensor."""
    arguments = call_of(call.outputs[0]).arguments
    given = tree.map_structure(lambda x: y if is_symbolic(x) else x, (arguments.args, arguments.kwargs))
    return call.operation(*given[0], **given[1])


def activation_layer(backward: BackwardPass, call: Call, function: Any, dtype: Any) -> keras.layers.Layer:
    return backward.layer(call, "activation", lambda name: keras.layers.Activation(function, dtype=dtype, name=name))


# --- normalisations and preprocessing


def norm(backward: BackwardPass, call: Call, y: keras.KerasTensor, choice: Any) -> Cotangents:
    if choice == "own":
        return [new_one_like(backward, call, "mirror")(y)]
    return scaling(backward, call, y, choice, "norm")


def preprocessing(backward: BackwardPass, call: Call, y: keras.KerasTensor, choice: Any) -> Cotangents:
    return scaling(backward, call, y, "inverse" if choice == "undo" else choice, "preprocessing")


def scaling(backward: BackwardPass, call: Call, y: keras.KerasTensor, choice: Any, policy: str) -> Cotangents:
    if choice == "skip" or nearest_class(inside(call.operation), (keras.layers.UnitNormalization,)):
        return [y]
    layer_class = SCALINGS.get(nearest_class(inside(call.operation), SCALINGS))
    if layer_class is None:
        raise missing(call, policy, choice)
    return [reading(backward, call, choice, layer_class, inverse=choice == "inverse")(y)]


# --- pooling


def pooling(backward: BackwardPass, call: Call, y: keras.KerasTensor, choice: Any) -> Cotangents:
    pool = inside(call.operation)
    if isinstance(pool, GLOBAL_POOLS):
        classes = {"spread": BroadcastGlobalPooling, "average": AdjointGlobalAveragePooling}
        exact = AdjointGlobalMaxPooling if isinstance(pool, GLOBAL_MAX_POOLS) else AdjointGlobalAveragePooling
    elif isinstance(pool, MAX_POOLS):
        classes, exact = {"spread": SpreadPooling, "average": AdjointAveragePooling}, AdjointMaxPooling
    elif selects(pool):
        layer = backward.layer(call, choice, lambda name: instead_of_selection(call, choice, name))
        return backward.apply(layer, call, [y])
    else:
        raise missing(call, "pooling", choice)
    layer_class = classes.get(choice, exact)
    layer = reading(backward, call, choice, layer_class)
    if getattr(layer, "needs_switches", False):
        switches = recorded_for("pooling", backward, call.inputs[0], call, 'max pooling by "switches"')
        return [layer(y, switches=switches)]
    return backward.apply(layer, call, [y])


def selects(operation: keras.Operation) -> bool:
    """Whether an operation selects from several tensors, or by windows of several sizes."""
    return isinstance(operation, EXTREMAL_OPERATIONS) or is_selection(operation)


def instead_of_selection(call: Call, choice: str, name: str) -> keras.layers.Layer:
    """What is substituted for a selection by "average": the adjoint of averages. By "spread" all get what one had given."""
    if nearest_class(call.operation, ADAPTIVE_MAX_POOLS):
        if choice == "spread":
            return SpreadAdaptivePooling(call.operation, name=name)
        return linear_adjoint(averaging_like(call.operation, call.inputs[0]), name=name)
    merge = (keras.layers.Add if choice == "spread" else keras.layers.Average)(dtype=call.outputs[0].dtype)
    merge.build([tuple(x.shape) for x in call.inputs])
    return linear_adjoint(merge, name=name)


# --- gates


def gates(backward: BackwardPass, call: Call, y: keras.KerasTensor, choice: Any) -> Cotangents:
    """Through the signal alone. What computed the gates gets no cotangent, unless the gradient is asked for."""
    signal = signal_among(call.inputs)
    if choice == "recorded":
        others = [x for number, x in enumerate(call.inputs) if number != signal]
        recorded = [recorded_for("gates", backward, x, call, 'a gate by "recorded"') for x in others]
        multiply = backward.layer(call, "gate", lambda name: keras.layers.Multiply(dtype=y.dtype, name=name))
        y = sum_to(multiply([y, *recorded]), tuple(call.inputs[signal].shape[1:]))
    return [y if number == signal else None for number in range(len(call.inputs))]


def signal_among(tensors: list[keras.KerasTensor]) -> int:
    """Which factor is the signal: the largest one; among equals one that was not squeezed; among those the first."""

    def elements(x: keras.KerasTensor) -> tuple[list[bool], list[int]]:
        return [size is None or size > 1 for size in x.shape[1:]], [size or 0 for size in x.shape[1:]]

    def rank(number: int) -> tuple[Any, bool, int]:
        return elements(tensors[number]), not squeezes(producer_of(tensors[number])), -number

    return max(range(len(tensors)), key=rank)


def squeezes(operation: keras.Operation) -> bool:
    name = getattr(getattr(operation, "activation", None), "__name__", None) or type(operation).__name__.lower()
    return name in SQUEEZING


# --- dropout


def dropout(backward: BackwardPass, call: Call, y: keras.KerasTensor, choice: Any) -> Cotangents:
    return [y if choice == "drop" else new_one_like(backward, call, "mirror")(y)]


UNDO: dict[str, Replacement] = {
    "activation": activation,
    "norm": norm,
    "preprocessing": preprocessing,
    "pooling": pooling,
    "gates": gates,
    "dropout": dropout,
}
