"""`Certificate`: the Lipschitz constants of a network and its calls, and what they certify."""

import math
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_adjoint.errors import NoRuleError
from keras_adjoint.operators.call_constants import How
from keras_adjoint.operators.classifier import Classifier
from keras_adjoint.ops import Shape

MOST_DIGITS = 7
ALMOST = Decimal("0.9")  # of a unit: a number that is rounded up by more shows more digits


def at_most(bound: float) -> str:
    """A number that may not be understated, rounded up to four significant digits.

    It has more digits where rounding up would change it by almost a whole unit of the last one, as of 1.000005 to 1.001.
    """
    if not math.isfinite(bound):
        return "∞" if math.isinf(bound) else str(bound)
    exact = Decimal(repr(float(bound)))
    for digits in range(4, MOST_DIGITS + 1):
        rounded = Context(prec=digits, rounding=ROUND_CEILING).create_decimal(exact)
        unit = Decimal(10) ** (exact.adjusted() + 1 - digits)
        if rounded - exact < ALMOST * unit:
            break
    return f"{float(rounded):.{digits}g}"


@dataclass(frozen=True)
class CallConstant:
    """The Lipschitz constant of one call of a layer or operation.

    Attributes:
        layer: Its name, with those of the models around it.
        type: Its type.
        inputs: The shapes that it takes, without the batch axis.
        outputs: The shapes that it gives.
        constant: By how much it lengthens a difference of what it takes, at most; infinite if it has no constant.
        how: How that was found: "bound", "matrix", "activation", "pooling", "sum", "selection", "move", "scale",
            "Lipschitz", or "none".
        reason: Why there is none, or "".
    """

    layer: str
    type: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    constant: float
    how: str
    reason: str = ""


def why(call: CallConstant) -> str:
    """Why a call has no constant, without what an error says that it received."""
    return call.reason.partition(" Received: ")[0]


@dataclass(frozen=True)
class Certificate:
    """What `certify` found, at the moment when it was called.

    Attributes:
        model: The model's name.
        input_norm: 2, the norm that all constants are about.
        bound: A number that no ‖f(x) − f(z)‖ / ‖x − z‖ exceeds; infinite if a call that the outputs depend on has no constant.
        calls: The constants of the calls that the outputs depend on, in the order of the calls.
    """

    model: str
    input_norm: int
    bound: float
    calls: tuple[CallConstant, ...]
    classifier: Classifier = field(repr=False, compare=False)

    @property
    def unknown(self) -> tuple[CallConstant, ...]:
        """The calls that have no constant; each says why as its `reason`."""
        return tuple(call for call in self.calls if call.how == How.NONE)

    def radius(self, outputs: Any, labels: Any = None) -> NDArray[np.float64]:
        """How far an input may move, in the 2-norm, before a classifier can change its class.

        The difference of two logits changes by no more than its Lipschitz constant times the distance (Tsuzuku, Sato and
        Sugiyama 2018). If the model ends in a softmax or sigmoid, the differences are computed from the probabilities.

        Args:
            outputs: What the model gives for a batch, of shape `(batch, classes)`; or `(batch, 1)` behind a sigmoid.
            labels: The true classes. Where the class is another one, the radius is 0, so that the certified accuracy at a
                radius r is `np.mean(certificate.radius(outputs, labels) > r)`.

        Returns:
            An array of shape `(batch,)`.

        Raises:
            NoRuleError: If a call has no constant.
            ValueError: If the outputs are not those of the classifier.
        """
        if self.unknown and math.isinf(self.bound):
            names = ", ".join(f"`{call.layer}` ({call.reason})" for call in self.unknown)
            raise NoRuleError(
                f"Nothing is certified about `{self.model}`, because calls in it have no Lipschitz constant: {names}. Replace "
                f"them, or certify the part of the model without them. Received: {self.unknown[0].type}"
            )
        return self.classifier.radius(outputs, labels)

    def __str__(self) -> str:
        unknown = [f"{call.layer}: no constant. {why(call)}" for call in self.unknown]
        return "\n".join([f"{self.model}: Lipschitz constant at most {at_most(self.bound)} in the 2-norm", *unknown])
