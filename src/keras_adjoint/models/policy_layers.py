"""What each policy puts in the place of what it decides about: one function per policy, one table entry per choice.

All of them take the way back, the call to be undone, what came back for it, and the choice, and return what goes back to
each input of the call.
"""

import keras

from keras_adjoint.errors import NoRuleError
from keras_adjoint.layers.adjoint import copied
from keras_adjoint.layers.deconvnet import RecordedSign
from keras_adjoint.layers.global_pooling import AdjointGlobalAveragePooling, BroadcastGlobalPooling
from keras_adjoint.layers.kernel import float_policy
from keras_adjoint.layers.norm import (
    AdjointAffinePart,
    AdjointBatchNormalization,
    AdjointNormalization,
    AdjointRescaling,
)
from keras_adjoint.layers.pooling import AdjointAveragePooling, SpreadPooling
from keras_adjoint.layers.registry import nearest_class
from keras_adjoint.layers.switches import AdjointGlobalMaxPooling, AdjointMaxPooling
from keras_adjoint.models.operations import operation_back
from keras_adjoint.models.policies import describe_call

# Normalisations and preprocessing, with the layer that multiplies by their scale or undoes it.
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


def new_one_like(way, call, role):
    """A new layer from the config of the one that was called, trained on its own."""

    def make(name):
        layer = type(call.operation).from_config({**call.operation.get_config(), "name": name})
        layer.trainable = True  # even if the encoder is frozen
        return layer

    return way.layer(call, role, make)


def reading(way, call, role, layer_class, **options):
    """A layer that reads the variables of the one that was called, or copies of them."""

    def make(name):
        if way.tied or not call.operation.weights:
            return layer_class(call.operation, name=name, **options)
        return layer_class(copied(call.operation, keep_bias=True), tied=False, name=name, **options)

    return way.layer(call, role, make)


def missing(call, policy, choice):
    return NoRuleError(
        f'{describe_call(call)} No layer is known for {policy}="{choice}" there. Choose another policy for it, as in '
        f"`{policy}={{{call.operation.name!r}: ...}}`"
    )


# --- activations


def activation(way, call, y, choice):
    """What an activation is replaced by. The code has passed its own activation already, so that is not applied again."""
    return [activated(way, call, y, choice)]


def activated(way, call, y, choice):
    after = call.outputs[0]
    if choice in ("gradient", "guided"):
        recorded = way.recall(after, call, f"an activation by {choice!r}")
        make = way.layer(call, choice, lambda name: RecordedSign(guided=choice == "guided", dtype=y.dtype, name=name))
        return make(y, recorded)
    if choice == "linear" or (way.is_code(after) and choice != "deconvnet"):
        return y
    if choice == "same":
        return same_activation(way, call)(y)
    function = "relu" if choice == "deconvnet" else choice
    return way.layer(call, "activation", lambda name: keras.layers.Activation(function, dtype=y.dtype, name=name))(y)


def same_activation(way, call):
    operation = call.operation
    if not isinstance(operation, keras.layers.Layer):
        return operation  # it holds nothing, so it can be called again
    own = getattr(operation, "activation", None)
    if own is None:
        return new_one_like(way, call, "mirror")
    policy = float_policy(operation)
    return way.layer(call, "activation", lambda name: keras.layers.Activation(own, dtype=policy, name=name))


# --- normalisations and preprocessing


def norm(way, call, y, choice):
    if choice == "own":
        return [new_one_like(way, call, "mirror")(y)]
    return scaling(way, call, y, choice, "norm")


def preprocessing(way, call, y, choice):
    return scaling(way, call, y, "inverse" if choice == "undo" else choice, "preprocessing")


def scaling(way, call, y, choice, policy):
    if choice == "skip" or isinstance(call.operation, keras.layers.UnitNormalization):
        return [y]
    layer_class = SCALINGS.get(nearest_class(call.operation, SCALINGS))
    if layer_class is None:
        raise missing(call, policy, choice)
    return [reading(way, call, choice, layer_class, inverse=choice == "inverse")(y)]


# --- pooling


def pooling(way, call, y, choice):
    pool = call.operation
    if isinstance(pool, GLOBAL_POOLS):
        classes = {"spread": BroadcastGlobalPooling, "average": AdjointGlobalAveragePooling}
        exact = AdjointGlobalMaxPooling if isinstance(pool, GLOBAL_MAX_POOLS) else AdjointGlobalAveragePooling
    elif isinstance(pool, MAX_POOLS):
        classes, exact = {"spread": SpreadPooling, "average": AdjointAveragePooling}, AdjointMaxPooling
    else:
        raise missing(call, "pooling", choice)
    layer_class = classes.get(choice, exact)
    layer = reading(way, call, choice, layer_class)
    if layer.needs_switches:
        switches = way.recall(call.inputs[0], call, 'max pooling by "switches"')
        return [layer(y, switches=switches)]
    return way.apply(layer, call, [y])


# --- gates


def gates(way, call, y, choice):
    """Back through the signal alone. What computed the gates gets nothing back."""
    if len(call.inputs) < 2:
        return operation_back(call, y)
    signal = signal_among(call.inputs)
    if choice == "recall":
        recalled = [
            way.recall(x, call, 'a gate by "recall"') for number, x in enumerate(call.inputs) if number != signal
        ]
        y = way.layer(call, "recall", lambda name: keras.layers.Multiply(dtype=y.dtype, name=name))([y, *recalled])
    return [y if number == signal else None for number in range(len(call.inputs))]


def signal_among(tensors):
    """Which factor is the signal: the largest one; among equals one that was not squeezed; among those the first."""

    def elements(x):
        return [size is None or size > 1 for size in x.shape[1:]], [size or 0 for size in x.shape[1:]]

    def rank(number):
        history = tensors[number]._keras_history.operation
        return elements(tensors[number]), not squeezes(history), -number

    return max(range(len(tensors)), key=rank)


def squeezes(operation):
    name = getattr(getattr(operation, "activation", None), "__name__", None) or type(operation).__name__.lower()
    return name in SQUEEZING


# --- dropout


def dropout(way, call, y, choice):
    return [y if choice == "drop" else new_one_like(way, call, "mirror")(y)]


UNDO = {
    "activation": activation,
    "norm": norm,
    "preprocessing": preprocessing,
    "pooling": pooling,
    "gates": gates,
    "dropout": dropout,
}
