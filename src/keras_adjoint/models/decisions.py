"""What undoes each call of an encoder, what the two share, and what decided about it, also where nothing can."""

from dataclasses import dataclass, field
from typing import Any

import keras

from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.gaps import BackwardPassOverGaps
from keras_adjoint.models.graph import Call, Graph
from keras_adjoint.models.mirror import around, backward_pass_of
from keras_adjoint.models.policies import Policies

EXACT, POLICY, NOTHING, UNREACHED, BROKEN = "exact", "policy", "nothing", "unreached", "broken"
TIED, COPIED = "tied", "copied"


@dataclass(frozen=True, eq=False)
class Rung:
    """A call of the encoder, and beside it what undoes that call in the mirror.

    Attributes:
        call: The `Call`.
        mirror: The layers that undo it.
        how: EXACT if adjoints do; POLICY if a policy put something there, NOTHING if it put nothing there; UNREACHED if
            nothing comes back as far as that; BROKEN if there is neither an adjoint nor a policy.
        shared: TIED if they read variables of the encoder, its kernel mostly, COPIED if they own copies, else `None`.
        decided: The choices about the call by policy.
        returned: For each input of the call whether something goes back to it.
        reason: Why there is no way back.
    """

    call: Call
    mirror: tuple
    how: str
    shared: str | None = None
    decided: dict = field(default_factory=dict)
    returned: tuple = ()
    reason: str = ""

    @property
    def main(self):
        """The layer that does the work: the one that reads the kernel, else the last."""
        readers = [layer for layer in self.mirror if isinstance(layer, Tied)]
        return (readers or [*self.mirror] or [None])[-1]


@dataclass(frozen=True, eq=False)
class Ladder:
    """An encoder with its mirror.

    Attributes:
        encoder: The model.
        graph: Its graph.
        rungs: A `Rung` for each call, from the inputs to the code.
        way: The way back that was taken.
    """

    encoder: keras.Model
    graph: Graph
    rungs: list
    way: Any

    @property
    def broken(self):
        """The rungs that there is no way back over."""
        return [rung for rung in self.rungs if rung.how == BROKEN]

    def autoencoder(self):
        """Encoder and mirror in one model, as `keras_adjoint.autoencoder` makes it."""
        return around(self.way, self.encoder, f"{self.encoder.name}_autoencoder")


def ladder_of(encoder, **policies):
    """The `Ladder` of an encoder. Policies as in `keras_adjoint.autoencoder`.

    Raises:
        NoRuleError: If the encoder is no graph of layers.
        ValueError: If it is no model, or a policy does not exist.
    """
    tied = policies.pop("tied", True)
    way = backward_pass_of(encoder, Policies.named(policies), tied=tied, remembers=True, kind=BackwardPassOverGaps)
    way.run(way.graph.outputs)
    return Ladder(encoder, way.graph, [rung_of(way, call) for call in way.graph.calls], way)


def rung_of(way, call):
    if call not in way.returned:
        return Rung(call, (), UNREACHED)
    if call in way.errors:
        return Rung(call, (), BROKEN, reason=first_line(way.errors[call]))
    mirror, decided = tuple(way.made_for(call).values()), way.decisions[call]
    by_policy = way.policies.about(call.operation) is not None
    readers = [layer for layer in mirror if isinstance(layer, Tied) and layer.source.weights]
    return Rung(
        call,
        mirror,
        NOTHING if by_policy and call in way.passed else POLICY if by_policy else EXACT,
        shared=(TIED if all(layer.tied for layer in readers) else COPIED) if readers else None,
        decided=dict(decided),
        returned=way.returned[call],
    )


def first_line(error):
    return str(error).partition("\n")[0] or type(error).__name__
