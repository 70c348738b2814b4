"""The radius within which a classifier provably stays with its class, from its margins (Hein and Andriushchenko 2017).

A change of the input by δ changes the difference of two logits by at most √2 L ‖δ‖, if L is the Lipschitz constant of all
logits together, so that a margin m certifies the radius m / √2 L (Tsuzuku, Sato and Sugiyama 2018). Behind a last `Dense` layer
with columns w, the difference of the logits a and b has the constant ‖w_a − w_b‖ L', if L' is that of what the layer takes. The
smaller one of the two is taken.

Softmax and sigmoid are taken off: of two classes the difference of logits is that of log p, or of log p − log (1 − p).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_adjoint.keras_internals import nn_operations
from keras_adjoint.layers.activations import function_of
from keras_adjoint.layers.adjoint import has_activation
from keras_adjoint.layers.dense import AdjointDense
from keras_adjoint.layers.wrapped import activation_of
from keras_adjoint.models.calls import Call
from keras_adjoint.models.policies import calls_activation
from keras_adjoint.operators.call_constants import Step
from keras_adjoint.operators.layer_bounds import rounding_of
from keras_adjoint.operators.layer_convolutions import kernel_of
from keras_adjoint.operators.layer_operator import LayerOperator, layer_operator
from keras_adjoint.operators.lipschitz import Lipschitz
from keras_adjoint.operators.on_host import on_host
from keras_adjoint.operators.operator import ABOVE
from keras_adjoint.ops import Shape
from keras_adjoint.ops.precision import epsilon


class Link(StrEnum):
    """What a classifier does with its logits at last."""

    NONE = "none"
    LOG_SOFTMAX = "log_softmax"
    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


@dataclass(frozen=True, eq=False)
class Classifier:
    """What is known about the logits of a network with one output.

    Attributes:
        shapes: The shapes of the network's outputs, without the batch axis.
        dtype: Their dtype, to which probabilities are rounded.
        constant: The Lipschitz constant of all logits together.
        link: What follows the logits.
        before: The constant of what the last `Dense` layer takes.
        kernel: The kernel of that layer; `None` if there is none.
    """

    shapes: tuple[Shape, ...]
    dtype: str
    constant: float
    link: Link = Link.NONE
    before: float = math.inf
    kernel: NDArray[np.float64] | None = None

    def radius(self, outputs: Any, labels: Any = None) -> NDArray[np.float64]:
        """See `Certificate.radius`."""
        given = self.checked(outputs)
        low, high = self.logits_of(given)
        classes = low.shape[1]
        predicted = np.argmax(given, axis=1) if given.shape[1] > 1 else (given[:, 0] > 0.5).astype(int)
        found = np.zeros(len(given))
        for winner in np.unique(predicted):
            rows = predicted == winner
            with np.errstate(divide="ignore", invalid="ignore"):
                margins = low[rows, winner, None] - high[rows]
                radii = np.where(margins > 0, margins / self.constants_against(winner, classes), 0.0)
            radii[:, winner] = math.inf
            found[rows] = radii.min(axis=1)
        found[~np.isfinite(given).all(axis=1)] = 0.0
        return found if labels is None else np.where(predicted == _labels(labels, low.shape), found, 0.0)

    def constants_against(self, winner: int, classes: int) -> NDArray[np.float64]:
        """The constant of the difference between the logit of one class and that of each other one."""
        if self.link == Link.SIGMOID and self.shapes[0] == (1,):
            return np.full(classes, self.constant)  # one logit against zero
        constants = np.full(classes, math.sqrt(2) * self.constant * ABOVE)
        if self.kernel is None or not math.isfinite(self.before):
            return constants
        apart = np.linalg.norm(self.kernel - self.kernel[:, winner : winner + 1], axis=0)
        return np.minimum(constants, apart * self.before * ABOVE)

    def checked(self, outputs: Any) -> NDArray[np.float64]:
        """What the model gives for a batch."""
        classes = self.shapes[0][-1] if len(self.shapes) == 1 and len(self.shapes[0]) == 1 else None
        if classes is None or (classes == 1 and self.link != Link.SIGMOID):
            raise ValueError(
                f"Radii are those of a classifier, which gives one number for each of two or more classes, or one behind a "
                f"sigmoid. Certify the part of the model that does. Received: a model that gives "
                f"{' and '.join(map(str, self.shapes))} for a sample"
            )
        given = on_host(outputs, "A certified radius")
        is_real = given.dtype.kind in "fiub" or given.dtype.name == "bfloat16"
        if given.ndim != 2 or given.shape[1] != classes or not is_real:
            raise ValueError(
                f"`outputs` is what the model gives for a batch, real numbers of shape (batch, {classes}). Received: an array "
                f"of shape {given.shape} and dtype {given.dtype}"
            )
        found = given.astype("float64")
        is_probability = self.link in (Link.SOFTMAX, Link.SIGMOID)
        if is_probability and not ((found >= 0) & (found <= 1)).all(where=np.isfinite(found)):
            raise ValueError(
                f"`outputs` is what the model gives for a batch: probabilities, since it ends in a {self.link}. Received: "
                f"numbers from {np.nanmin(found)} to {np.nanmax(found)}"
            )
        return found

    def logits_of(self, given: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(the least that the logits can be, the most), up to a number for all of them, as probabilities are rounded."""
        if self.link not in (Link.SOFTMAX, Link.SIGMOID):
            return given, given
        unit, tiny = epsilon(self.dtype), float(np.finfo("float16" if self.dtype == "float16" else "float32").tiny)
        low, high = given * (1 - unit), np.maximum(given * (1 + unit), tiny)
        with np.errstate(divide="ignore"):
            if self.link == Link.SOFTMAX:
                return np.log(low), np.log(high)
            high = np.minimum(high, 1)
            low, high = (np.log(each) - np.log1p(-each) for each in (low, high))
        if given.shape[1] > 1:
            return low, high
        low, high = (np.concatenate([0 * given, each], axis=1) for each in (low, high))  # against zero
        return low, high


def _labels(labels: Any, shape: Shape) -> NDArray[np.int64]:
    given = np.asarray(ops.convert_to_numpy(labels))
    if given.shape != shape[:1] or given.dtype.kind not in "iu" or not ((given >= 0) & (given < shape[1])).all():
        raise ValueError(
            f"`labels` are the numbers of the true classes, integers from 0 to {shape[1] - 1} of shape {tuple(shape[:1])}. "
            f"Received: an array of shape {given.shape} and dtype {given.dtype}"
        )
    return given.astype("int64")


def classifier_of(
    outputs: list[keras.KerasTensor], steps: Mapping[Call, Step], constants: Mapping[int, float], whole: float
) -> Classifier:
    """The `Classifier` of a network.

    Args:
        outputs: Its outputs.
        steps: The `Step` of every call.
        constants: The constant of every tensor, by its `id`.
        whole: The constant of the network.
    """
    shapes, dtype = tuple(tuple(y.shape[1:]) for y in outputs), outputs[0].dtype
    if len(shapes) != 1 or len(shapes[0]) != 1:
        return Classifier(shapes, dtype, whole)
    producers = {id(y): call for call in steps for y in call.outputs}
    logits, link = outputs[0], Link.NONE
    call = producers.get(id(logits))
    if call is not None and calls_activation(call):
        link = link_of(call.operation)
        if link != Link.NONE:
            logits = call.inputs[0]
            call = producers.get(id(logits))
    constant = constants[id(logits)]
    if call is None or steps[call].linear is None or len(call.inputs) != 1:
        return Classifier(shapes, dtype, constant, link)
    before, linear = constants[id(call.inputs[0])], steps[call].linear or 0.0
    layer = call.operation.layer if isinstance(call.operation, Lipschitz) else call.operation
    if has_activation(layer):
        own = link_of(activation_of(layer)) if link == Link.NONE else Link.NONE
        if own == Link.NONE:
            return Classifier(shapes, dtype, constant, link)
        link, constant = own, linear * before * ABOVE if before else 0.0
    return Classifier(shapes, dtype, constant, link, before, _kernel_in(call))


def link_of(activation: Any) -> Link:
    """What an activation at the end of a classifier is to its logits, of shape (batch, classes)."""
    function = function_of(activation)
    is_log = any(function is each for each in (keras.activations.log_softmax, ops.log_softmax))
    if is_log or (isinstance(function, nn_operations.LogSoftmax) and function.axis in (-1, 1)):
        return Link.LOG_SOFTMAX
    if function is keras.activations.softmax or (
        isinstance(function, keras.layers.Softmax) and function.axis in (-1, 1)
    ):
        return Link.SOFTMAX
    return Link.SIGMOID if function is keras.activations.sigmoid else Link.NONE


def _kernel_in(call: Call) -> NDArray[np.float64] | None:
    """The kernel of a `Dense` layer as it computes with it, in wrappers or not; `None` for another layer."""
    layer, shape = call.operation, tuple(call.inputs[0].shape)
    factor = 1.0
    if isinstance(layer, Lipschitz):
        operator: Any = layer.operator_at(shape)
        factor = float(ops.convert_to_numpy(layer.factor(shape))) * ABOVE
    else:
        operator = layer_operator(layer, shape[1:], linear_part=True)
    made = operator.backward if isinstance(operator, LayerOperator) else None
    if not isinstance(made, AdjointDense):
        return None
    rounding = rounding_of(operator.dtype) ** 2
    return np.asarray(ops.convert_to_numpy(kernel_of(made))).astype("float64") * factor * rounding
