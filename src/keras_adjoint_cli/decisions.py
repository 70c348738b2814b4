"""What a mirror decided about the layers of an encoder, read from its way back."""

import math
from dataclasses import dataclass

from keras_adjoint.layers.adjoint import original_of
from keras_adjoint.layers.bias import READS_SOURCE
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.mirror import MirrorBackwardPass

SHIFTS = ("bias", "beta", "mean", "moving_mean")  # variables that a linear part does not read


@dataclass(frozen=True)
class Decision:
    """How one layer is undone."""

    layer: str  # with the names of the models around it
    type: str
    by: list  # types of the layers that undo it
    exact: bool  # whether its adjoint does, rather than what a policy puts in its place
    policies: dict  # what they chose
    keys: dict  # which key of each of these policies' dictionaries said so, as a name; or None
    tied: int  # parameters that are shared with it
    own: int  # parameters that are added


def decision_about(way, call):
    """The `Decision` about a call that has been undone."""
    operation, made = call.operation, way.made_for(call).values()
    exact = way.policies.about(operation) is None
    policies = way.decisions[call] | (bias_of(made, way.policies.choose("bias", operation)) if exact else {})
    keys = {policy: way.policies.key(policy, operation) for policy in policies}
    counts = [parameters(layer, operation) for layer in made]
    return Decision(
        layer=place_in_model(call),
        type=type(operation).__name__,
        by=[type(layer).__name__ for layer in made],
        exact=exact,
        policies=policies,
        keys={policy: getattr(key, "__name__", key) for policy, key in keys.items()},
        tied=sum(tied for tied, _ in counts),
        own=sum(own for _, own in counts),
    )


def bias_of(made, choice):
    """The choice about the bias, if the layers that were made can have one and do what it says."""
    return {"bias": choice} if any(getattr(layer, "bias_mode", None) == choice for layer in made) else {}


def decisions_of(way):
    """A `Decision` about every layer that was undone, in the order of the encoder."""
    first_calls = {id(call.operation): call for call in reversed(way.graph.calls) if call in way.decisions}
    return [decision_about(way, call) for call in way.graph.calls if first_calls.get(id(call.operation)) is call]


class Watched(MirrorBackwardPass):
    """A way back that tells how far it has come.

    Args:
        *args: See `MirrorBackwardPass`.
        advance: Called for every call that is undone.
        **options: See `MirrorBackwardPass`.
    """

    def __init__(self, *args, advance, **options):
        super().__init__(*args, **options)
        self.advance = advance

    def carry_back(self, call, backs):
        self.advance()
        return super().carry_back(call, backs)


def place_in_model(call):
    """Where a call is, without the name of the whole model."""
    return call.place.partition("/")[2]


def parameters(layer, undone):
    """(parameters that a layer shares with the one that it undoes, parameters of its own)."""
    if isinstance(undone, Tied) and original_of(undone) is layer:
        return parameters_read(undone), 0
    if isinstance(layer, Tied) and layer.tied:
        return parameters_read(layer), layer.count_params()
    return 0, layer.count_params()


def parameters_read(layer):
    """How many parameters of its source an adjoint layer reads."""
    return sum(math.prod(variable.shape) for variable in variables_read(layer))


def variables_read(layer):
    """The variables of its source that an adjoint layer reads."""
    shifts_too = getattr(layer, "inverse", False) or getattr(layer, "bias_mode", "none") in READS_SOURCE
    return [weight for weight in layer.source.weights if shifts_too or weight.name not in SHIFTS]
