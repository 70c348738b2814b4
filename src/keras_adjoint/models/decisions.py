"""What becomes of each call of an encoder in its mirror: exact, its linear part, by policy, neither, or not reached.

This is the one place that says so. The commands, the diagram, the report and the doctor show what stands here.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import keras

from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.layers.bias import READS_SOURCE
from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Cotangents, Graph
from keras_adjoint.models.mirror import with_decoder
from keras_adjoint.models.mirror_backward import MirrorBackwardPass, graph_of_encoder
from keras_adjoint.models.policies import Policies, ends_in_activation


class Kind(StrEnum):
    """How a mirror undoes a call."""

    EXACT = "exact"  # by its adjoint
    LINEAR_PART = (
        "linear_part"  # by the adjoint of its linear part; a policy decides about the activation that it ends in
    )
    POLICY = "policy"  # by what a policy puts in its place, or by leaving it out
    NEITHER = "neither"  # not at all: it has neither an adjoint nor a policy
    UNREACHED = "unreached"  # not at all: no cotangent arrives, as at what computes a gate

    @property
    def words(self) -> str:
        """The kind for people."""
        return self.value.replace("_", " ")


class Sharing(StrEnum):
    """What the layers of a mirror read."""

    TIED = "tied"  # variables of the encoder
    COPIED = "copied"  # copies of them


@dataclass(frozen=True, eq=False)
class Decision:
    """What becomes of one call in the mirror.

    Attributes:
        call: The `Call`.
        kind: How it is undone.
        layers: The layers that stand for it in the mirror, by their role.
        policies: What the policies chose about it.
        settings: The name of the key in a policy's dictionary that chose so, by policy; `None` if no key did.
        sharing: Whether its layers read the encoder's variables or own copies; `None` if they read none.
        reached: For each of its inputs whether a cotangent arrives there.
        left_out: Whether a policy chose to put nothing in its place.
        error: Why it is not undone.
        tied_variables: The variables of the encoder that its layers read.
        own_variables: The variables that they add.
    """

    call: Call
    kind: Kind
    layers: dict[str, keras.layers.Layer] = field(default_factory=dict)
    policies: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    sharing: Sharing | None = None
    reached: tuple[bool, ...] = ()
    left_out: bool = False
    error: Exception | None = None
    tied_variables: tuple[keras.Variable, ...] = ()
    own_variables: tuple[keras.Variable, ...] = ()

    @property
    def name(self) -> str:
        """The name of the layer or operation."""
        return self.call.operation.name

    @property
    def type(self) -> str:
        """The type of the layer or operation."""
        return type(self.call.operation).__name__

    @property
    def main(self) -> keras.layers.Layer | None:
        """The layer that does the work in its place: the one that reads the kernel, else the last."""
        layers = list(self.layers.values())
        readers = [layer for layer in layers if isinstance(layer, Tied)]
        return (readers or layers)[-1] if layers else None

    @property
    def reason(self) -> str:
        """Why it is not undone, or ""."""
        return "" if self.error is None else str(self.error) or type(self.error).__name__


class Decisions(Sequence[Decision]):
    """A `Decision` about each call of an encoder, from its inputs to the code.

    Attributes:
        encoder: The encoder.
        graph: Its graph.
        backward: The backward pass that was taken.
    """

    def __init__(self, encoder: keras.Model, backward: "DecidingBackwardPass") -> None:
        self.encoder, self.graph, self.backward = encoder, backward.graph, backward
        self._decisions = [backward.decision_about(call) for call in backward.graph.calls]

    def __getitem__(self, index: Any) -> Any:
        return self._decisions[index]

    def __len__(self) -> int:
        return len(self._decisions)

    @property
    def gaps(self) -> list[Decision]:
        """The decisions about calls with neither an adjoint nor a policy."""
        return [decision for decision in self if decision.kind == Kind.NEITHER]

    def by_layer(self) -> dict[int, Decision]:
        """The decision about each layer or operation, by its `id`: of several calls the first that is reached."""
        found: dict[int, Decision] = {}
        for decision in self:
            first = found.setdefault(id(decision.call.operation), decision)
            if first.kind == Kind.UNREACHED:
                found[id(decision.call.operation)] = decision
        return found

    def autoencoder(self) -> keras.Model:
        """Encoder and mirror in one model, as `keras_adjoint.autoencoder` makes it."""
        return with_decoder(self.backward, self.encoder, f"{self.encoder.name}_autoencoder")


def decide(
    encoder: keras.Model,
    policies: Mapping[str, Any] | None = None,
    *,
    graph: Graph | None = None,
    advance: Callable[[], Any] = lambda: None,
) -> Decisions:
    """The `Decisions` about an encoder, which may contain layers that cannot be mirrored.

    Args:
        encoder: A Functional or built Sequential model.
        policies: Those of `keras_adjoint.autoencoder`.
        graph: The encoder's graph, if it is known.
        advance: Called after every call.

    Raises:
        NoRuleError: If the encoder is no graph of layers.
        ValueError: If it is no model, or a policy does not exist.
    """
    chosen = dict(policies or {})
    tied = chosen.pop("tied", True)
    named = Policies.named(chosen)
    graph = graph_of_encoder(encoder) if graph is None else graph
    backward = DecidingBackwardPass(graph, encoder, named, tied=tied, records=True, tolerant=True, advance=advance)
    backward.run(graph.outputs)
    return Decisions(encoder, backward)


class DecidingBackwardPass(MirrorBackwardPass):
    """A mirror's backward pass that notes what becomes of each call.

    Args:
        *arguments: See `MirrorBackwardPass`.
        tolerant: Whether to go on, with new tensors, after a call that cannot be undone. No model can be made then.
        advance: Called for every call that is reached.
        **options: See `MirrorBackwardPass`.
    """

    def __init__(
        self, *arguments: Any, tolerant: bool = False, advance: Callable[[], Any] = lambda: None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.tolerant, self.advance = tolerant, advance
        self._errors: dict[Call, Exception] = {}
        self._left_out: set[Call] = set()
        self._reached: dict[Call, tuple[bool, ...]] = {}

    def transpose_call(self, call: Call, cotangents: Cotangents) -> Cotangents:
        self.advance()
        try:
            found = super().transpose_call(call, cotangents)
        except Exception as error:
            if not self.tolerant:
                raise
            self._errors[call] = error
            found = [keras.KerasTensor(x.shape, x.dtype) for x in call.inputs]
        if any(new is old for new in found for old in cotangents if old is not None):
            self._left_out.add(call)
        self._reached[call] = tuple(cotangent is not None for cotangent in found)
        return found

    def decision_about(self, call: Call) -> Decision:
        """The `Decision` about a call, after the pass."""
        if call not in self._reached:
            return Decision(call, Kind.UNREACHED)
        if call in self._errors:
            return Decision(call, Kind.NEITHER, error=self._errors[call])
        operation, layers = call.operation, self.made_for(call)
        by_policy = self.policies.about(call) is not None or "gradient" in layers
        choices = self.choices[call] | ({} if by_policy else self._bias_of(call))
        if not by_policy and self._has_passed_activation(call):
            del choices["activation"]  # the mirror has none there
        keys = {policy: self.policies.key(policy, operation) for policy in choices}
        used = [variables_used(layer, operation) for layer in layers.values()]
        return Decision(
            call,
            Kind.POLICY if by_policy else Kind.LINEAR_PART if ends_in_activation(operation) else Kind.EXACT,
            layers=layers,
            policies=choices,
            settings={policy: getattr(key, "__name__", key) for policy, key in keys.items()},
            sharing=sharing_of(layers.values()),
            reached=self._reached[call],
            left_out=by_policy and call in self._left_out,
            tied_variables=tuple(variable for tied, _ in used for variable in tied),
            own_variables=tuple(variable for _, own in used for variable in own),
        )

    def _has_passed_activation(self, call: Call) -> bool:
        """Whether a call ends in an activation that the mirror does not repeat, because the code has passed it."""
        choice = self.choices[call].get("activation")
        return choice is not None and choice != "linear" and self._effective("activation", choice, call) == "linear"

    def _bias_of(self, call: Call) -> dict[str, Any]:
        """The choice about the bias, if the layers of a call can have one and do what it says."""
        choice = self.policies.choose("bias", call.operation)
        follows = any(getattr(layer, "bias_mode", None) == choice for layer in self.made_for(call).values())
        return {"bias": choice} if follows else {}


# --- what a mirror shares with its encoder

SHIFTS = ("bias", "beta", "mean", "moving_mean")  # variables that a linear part does not read


def sharing_of(layers: Iterable[keras.layers.Layer]) -> Sharing | None:
    readers = [layer for layer in map(reader_in, layers) if isinstance(layer, Tied) and layer.source.weights]
    if not readers:
        return None
    return Sharing.TIED if all(layer.tied for layer in readers) else Sharing.COPIED


def reader_in(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A layer, or, inside of a wrapper such as `TimeDistributed`, the adjoint layer that it wraps."""
    if isinstance(layer, Tied):
        return layer
    return next((inner for inner in layers_inside(layer) if isinstance(inner, Tied)), layer)


def variables_used(
    layer: keras.layers.Layer, undone: keras.Operation
) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """(variables that a layer of a mirror reads in its encoder, its own), for a layer that undoes another."""
    if isinstance(undone, Tied) and undone.source is layer:
        return variables_read(undone), []
    layer = reader_in(layer)
    if not (isinstance(layer, Tied) and layer.tied):
        return [], layer.weights
    theirs = {id(variable) for variable in layer.source.weights}
    return variables_read(layer), [variable for variable in layer.weights if id(variable) not in theirs]


def count_parameters(variables: Iterable[keras.Variable]) -> int:
    """How many numbers some variables hold; one that comes up several times is counted once."""
    return sum(math.prod(variable.shape) for variable in {id(one): one for one in variables}.values())


def variables_read(layer: Tied) -> list[keras.Variable]:
    """The variables of its source that an adjoint layer reads."""
    shifts_too = getattr(layer, "inverse", False) or getattr(layer, "bias_mode", "none") in READS_SOURCE
    return [weight for weight in layer.source.weights if shifts_too or weight.name not in SHIFTS]


def adjoints_in(model: keras.Model) -> Iterator[Tied]:
    """The layers of a model that read variables of another layer."""
    layers = (layer for layer in layers_inside(model) if isinstance(layer, Tied))
    return (layer for layer in layers if layer.tied and layer.source.weights)
