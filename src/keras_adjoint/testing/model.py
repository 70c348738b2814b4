"""The adjoint test of every layer of a model."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_adjoint.errors import NoRuleError, TieError, in_short
from keras_adjoint.layers.adjoint import has_activation, linear_adjoint, probe_shape
from keras_adjoint.layers.registry import REGISTERED_BY_USERS, class_with_rule
from keras_adjoint.layers.tied import Tied, call_at_inference, exact_source, stand_in
from keras_adjoint.models.graph import layers_of
from keras_adjoint.models.steps import Steps
from keras_adjoint.ops import Shape, Tensor
from keras_adjoint.ops.dot_test import evaluate, operator_dtype, random_probe
from keras_adjoint.ops.precision import epsilon
from keras_adjoint.testing.check import AdjointReport, check_adjoint

OK, FAILED, NO_RULE, NOT_LINEAR, NOT_RUN = "ok", "failed", "no rule", "not linear", "not run"


@dataclass(frozen=True)
class LayerCheck:
    """The outcome of the adjoint test of one layer.

    Attributes:
        layer: Its name, with those of the models around it.
        type: Its type.
        verdict: OK, FAILED, NO_RULE, NOT_LINEAR or NOT_RUN.
        adjoint: The type of its adjoint, or "".
        adjoint_of: The name of its source, if the layer is itself an adjoint, or "".
        input_shape: The shape that was tried.
        residual: The largest residual, if it is finite.
        tolerance: What rounding explains.
        linear_part: Whether the test is of its linear part alone, because the layer has an activation.
        reason: Why it failed or was not tested, or "".
    """

    layer: str
    type: str
    verdict: str
    adjoint: str = ""
    adjoint_of: str = ""
    input_shape: Shape = ()
    residual: float | None = None
    tolerance: float | None = None
    linear_part: bool = False
    reason: str = ""

    @property
    def failed(self) -> bool:
        return self.verdict == FAILED

    @property
    def pair(self) -> str:
        """What it was tested with: its adjoint or its source, in words."""
        text = f"of {self.adjoint_of}" if self.adjoint_of else self.adjoint
        return f"{text}, linear part" if self.linear_part else text


def check_layers(model: keras.Model, advance: Callable[[], Any] = lambda: None) -> list[LayerCheck]:
    """A `LayerCheck` of every layer of a model; `advance` is called before each."""
    found = []
    for name, layer in layers_of(model):
        if not isinstance(layer, Steps):  # they move samples, and are transposed as a pair
            advance()
            found.append(check_layer(name, layer))
    return found


def check_layer(name: str, layer: keras.layers.Layer, trials: int = 3) -> LayerCheck:
    """The `LayerCheck` of one layer, from that many random pairs. Errors are verdicts, too."""
    found = LayerCheck(name, type(layer).__name__, OK)
    try:
        adjoint, report = run_test(layer, trials)
    except NoRuleError as error:
        refused = class_with_rule(layer) in REGISTERED_BY_USERS  # its rule failed the adjoint test
        verdict = FAILED if refused else NO_RULE if may_be_linear(layer) else NOT_LINEAR
        return replace(found, verdict=verdict, reason=str(error))
    except TieError as error:
        return replace(found, verdict=NO_RULE, reason=str(error))
    except Exception as error:
        own = runs(layer)
        reason = f"{'' if own else 'the layer itself does not run here: '}{type(error).__name__}: {in_short(error)}"
        return replace(found, verdict=FAILED if own else NOT_RUN, reason=reason)
    verdict, reason, source = OK if report else FAILED, report.diagnosis, exact_source(layer)
    if not report and quantisation(layer):
        verdict, reason = NOT_LINEAR, f"it rounds its inputs to {quantisation(layer)}, so it is linear only up to that"
    return replace(
        found,
        verdict=verdict,
        adjoint="" if adjoint is None else type(adjoint).__name__,
        adjoint_of="" if source is None else source.name,
        input_shape=tuple(report.input_shape),
        residual=report.residual if math.isfinite(report.residual) else None,
        tolerance=report.tolerance,
        linear_part=has_activation(layer if source is None else source),
        reason=reason,
    )


def run_test(layer: keras.layers.Layer, trials: int) -> tuple[keras.layers.Layer | None, AdjointReport]:
    """(the adjoint, or `None` of a layer that is itself one; the report of the adjoint test)."""
    if isinstance(layer, Tied) and layer.exact:
        return None, check_adjoint(layer, trials=trials) or without_bias(layer)
    adjoint = linear_adjoint(layer)
    return adjoint, check_adjoint(layer, adjoint, trials=trials)


def without_bias(layer: Tied) -> AdjointReport:
    """The failed test of an adjoint layer once more, as that of its source, which can find mistakes in the kernel's use.

    It would take the layer's bias for a mistake, so it is left out.
    """
    biases = {name: None for name in ("bias", "bias_map") if getattr(layer, name, None) is not None}
    return check_adjoint(layer.source, stand_in(layer, biases))


def quantisation(layer: keras.layers.Layer) -> str | None:
    """The numbers that a quantised layer, or the source of an adjoint layer, computes with; else `None`."""
    return getattr(layer.source if isinstance(layer, Tied) else layer, "quantization_mode", None)


def may_be_linear(layer: keras.layers.Layer) -> bool:
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


def runs(layer: keras.layers.Layer) -> bool:
    """Whether the layer itself can be called on this backend."""
    try:
        shape, dtype = probe_shape(layer), operator_dtype(layer)
        if shape is None:
            return False
        evaluate(inference(layer), 0 * random_probe(shape, dtype, np.random.default_rng(0)), dtype)
    except Exception:
        return False
    return True


def inference(layer: keras.layers.Layer) -> Callable[[Tensor], Tensor]:
    """A layer at inference; of a cell of a recurrent layer, its first step."""
    if hasattr(layer, "state_size") and hasattr(layer, "get_initial_state") and not hasattr(layer, "cell"):
        return lambda x: layer(x, layer.get_initial_state(batch_size=x.shape[0]))[0]
    return partial(call_at_inference, layer)
