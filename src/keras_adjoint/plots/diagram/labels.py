"""The labels of the diagram: each call, and its counterpart in the mirror, in words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_adjoint.layers.tied import Tied
from keras_adjoint.models.decisions import Decision, Kind, Sharing, reader_in
from keras_adjoint.models.text import choice_text, shapes_text, size_text

LEFT_OUT = "nothing"
WITHOUT_COUNTERPART = {Kind.UNREACHED: "not reached", Kind.NEITHER: "no adjoint, no policy"}
ADJOINTS = {Kind.EXACT: "exact", Kind.LINEAR_PART: "of the linear part"}
SHARED = {Sharing.TIED: "tied", Sharing.COPIED: "a copy"}


@dataclass(frozen=True)
class Labels:
    """A call and its counterpart in the mirror, in words.

    Attributes:
        name: The encoder's layer.
        type: Its type.
        into: The sizes of its inputs.
        out: The sizes of its outputs.
        kernel: The shape of the shared kernel, or "".
        mirror: The type of its counterpart, or "".
        how: Whether that is exact, or of the linear part, and what the policies chose.
        changes_size: Whether the sizes of inputs and outputs differ.
    """

    name: str
    type: str
    into: str
    out: str
    kernel: str
    mirror: str
    how: str
    changes_size: bool

    @property
    def sentence(self) -> str:
        """All of it, for readers who do not see the diagram."""
        kernel = f" with a kernel of {self.kernel}," if self.kernel else ""
        return f"{self.name}, {self.type},{kernel} from {self.into} to {self.out}; in the mirror {self.counterpart}"

    @property
    def counterpart(self) -> str:
        """Its counterpart, and whether that is exact."""
        return f"{self.mirror}, {self.how}" if self.mirror else self.how


def labels_of(decision: Decision) -> Labels:
    call, main = decision.call, decision.main
    reader = None if main is None else reader_in(main)
    kernel = largest(reader.source.weights) if decision.sharing and isinstance(reader, Tied) else None
    return Labels(
        name=decision.name,
        type=decision.type,
        into=shapes_text(x.shape for x in call.inputs),
        out=shapes_text(y.shape for y in call.outputs),
        kernel=size_text(kernel.shape) if kernel is not None else "",
        mirror="" if has_no_counterpart(decision) else type(call.operation if main is None else main).__name__,
        how=how(decision),
        changes_size=len({tuple(tensor.shape[1:]) for tensor in (*call.inputs, *call.outputs)}) > 1,
    )


def has_no_counterpart(decision: Decision) -> bool:
    """Whether the mirror has nothing in place of the call."""
    return decision.left_out or decision.kind in WITHOUT_COUNTERPART


def role_of(decision: Decision) -> str:
    """The role of the box beside a call. The adjoint of a linear part is as exact as any."""
    return LEFT_OUT if decision.left_out else str(Kind.EXACT if decision.kind in ADJOINTS else decision.kind)


def how(decision: Decision) -> str:
    """Whether a call is mirrored exactly, and what the policies chose."""
    chosen = {policy: choice_text(choice) for policy, choice in decision.policies.items()}
    if chosen.get("bias") == "none":
        del chosen["bias"]
    if has_no_counterpart(decision):
        return WITHOUT_COUNTERPART.get(decision.kind, LEFT_OUT) + (f" ({listed(chosen, ': ')})" if chosen else "")
    shared = [SHARED[decision.sharing]] if decision.sharing else []
    if decision.kind in ADJOINTS:
        return ", ".join([ADJOINTS[decision.kind], *shared]) + (f"; {listed(chosen, ' ')}" if chosen else "")
    return ", ".join([listed(chosen, ": "), *shared])


def listed(chosen: Mapping[str, Any], between: str) -> str:
    return ", ".join(f"{policy}{between}{choice}" for policy, choice in chosen.items())


def largest(variables: Iterable[keras.Variable]) -> keras.Variable:
    """The variable with the most axes."""
    return max(variables, key=lambda variable: len(variable.shape))
