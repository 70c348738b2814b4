"""`keras-adjoint check`: the adjoint test of every layer of a saved model."""

import math
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from keras_adjoint.errors import NoRuleError, TieError
from keras_adjoint.layers.adjoint import linear_adjoint, probe_shape
from keras_adjoint.layers.registry import REGISTERED_BY_USERS, class_with_rule
from keras_adjoint.layers.tied import Tied, call_at_inference
from keras_adjoint.models.graph import layers_of
from keras_adjoint.ops.dot_test import evaluate, operator_dtype, random_probe
from keras_adjoint.ops.precision import epsilon
from keras_adjoint.testing.check import check_adjoint

OK, FAILED, NO_RULE, NOT_LINEAR, NOT_RUN = "ok", "FAILED", "no rule", "not linear", "not run"


@dataclass(frozen=True)
class Finding:
    """What was found about one layer."""

    layer: str  # with the names of the models around it
    type: str
    verdict: str
    adjoint: str = ""  # its type, or what the layer is the adjoint of
    input_shape: tuple = ()
    residual: float | None = None
    tolerance: float | None = None
    reason: str = ""

    @property
    def failed(self):
        return self.verdict == FAILED


def examine(model):
    """A `Finding` for every layer of a model."""
    return [examine_layer(name, layer) for name, layer in layers_of(model)]


def examine_layer(name, layer, trials=3):
    """The finding for one layer, whatever happens to it, from that many random pairs."""
    known = {"layer": name, "type": type(layer).__name__}
    try:
        known["adjoint"], report = run_test(layer, trials)
    except NoRuleError as error:
        if class_with_rule(layer) in REGISTERED_BY_USERS:  # a rule that was refused, for it failed the adjoint test
            return Finding(**known, verdict=FAILED, reason=str(error))
        return Finding(**known, verdict=NO_RULE if may_be_linear(layer) else NOT_LINEAR, reason=str(error))
    except TieError as error:
        return Finding(**known, verdict=NO_RULE, reason=str(error))
    except Exception as error:
        own = runs(layer)
        reason = f"{'' if own else 'the layer itself does not run here: '}{type(error).__name__}: {error}"
        return Finding(**known, verdict=FAILED if own else NOT_RUN, reason=reason)
    verdict, reason = OK if report else FAILED, report.diagnosis
    if not report and quantisation(layer):
        verdict, reason = NOT_LINEAR, f"it rounds its inputs to {quantisation(layer)}, so it is linear only up to that"
    return Finding(
        **known,
        verdict=verdict,
        input_shape=tuple(report.input_shape),
        residual=report.residual if math.isfinite(report.residual) else None,
        tolerance=report.tolerance,
        reason=reason,
    )


def run_test(layer, trials):
    """(the adjoint in words, the report of the adjoint test)."""
    if isinstance(layer, Tied):
        return f"of {layer.source.name}", check_adjoint(layer, trials=trials) or without_bias(layer)
    adjoint = linear_adjoint(layer)
    return type(adjoint).__name__, check_adjoint(layer, adjoint, trials=trials)


def without_bias(layer):
    """The failed test of an adjoint layer once more, as that of its source, which can find mistakes in the kernel's use.

    It takes the layer's bias for a mistake, so the model, which nobody else uses, loses it.
    """
    for variable in layer.weights:
        if "bias" in variable.name and all(variable is not other for other in layer.source.weights):
            variable.assign(keras.ops.zeros_like(variable))
    return check_adjoint(layer.source, layer)


def quantisation(layer):
    """The numbers that a quantised layer, or the source of an adjoint layer, computes with; else `None`."""
    return getattr(layer.source if isinstance(layer, Tied) else layer, "quantization_mode", None)


def may_be_linear(layer):
    """Whether f(x + y) + f(0) = f(x) + f(y) for random x and y, or cannot be tried."""
    try:
        shape, dtype = probe_shape(layer), operator_dtype(layer)
        if shape is None:
            return True
        x, y = random_probe((2, *shape), dtype, np.random.default_rng(0))
        both, zero, one, other = (evaluate(inference(layer), probe, dtype) for probe in (x + y, 0 * x, x, y))
    except Exception:
        return True
    return abs(both + zero - one - other).max() <= math.sqrt(epsilon(dtype)) * (abs(both).max() + abs(one).max())


def runs(layer):
    """Whether the layer itself can be called on this backend."""
    try:
        shape, dtype = probe_shape(layer), operator_dtype(layer)
        evaluate(inference(layer), 0 * random_probe(shape, dtype, np.random.default_rng(0)), dtype)
    except Exception:
        return False
    return True


def inference(layer):
    return partial(call_at_inference, layer)
