"""What a layer takes for a sample, beside the adjoint and the pseudo-inverse of what its linear part makes of it.

With y = A x, the adjoint Aᵀ y is what a mirror sends back, and the pseudo-inverse A⁺ y is all of x that y determines: x itself
where A has full column rank, else its part in the row space of A.
"""

import math
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.models.calls import Call
from keras_adjoint.models.graph import Graph
from keras_adjoint.operators.model_operator import operator
from keras_adjoint.operators.operator import Operator
from keras_adjoint.plots.comparison import Comparison, drawable, in_decibels, is_curve
from keras_adjoint.report.pictures import CURVES, Panel, middle, photograph, points
from keras_adjoint.solvers.lstsq import lstsq

SECONDS = 10.0  # for all layers of a page together
WORK = 2e9  # about how many multiplications the pseudo-inverse of one layer may cost
MOST_STEPS, FEWEST_STEPS = 100, 20


@dataclass(frozen=True)
class Inverse:
    """Three panels, what the layer takes and what the adjoint and the pseudo-inverse make of it, or why there are none."""

    panels: list[Panel] = field(default_factory=list)
    note: str = ""


class Inverses:
    """The `Inverse` of each layer of a graph for one sample, as long as there is time for them."""

    def __init__(self, graph: Graph, sample: np.ndarray) -> None:
        self.graph, self.sample, self.left = graph, sample, SECONDS
        self.calls: dict[int, Call] = {}
        for call in graph.calls:
            self.calls.setdefault(id(call.operation), call)

    def of(self, layer: keras.layers.Layer) -> Inverse | None:
        """Those of a layer with a kernel; `None` if the graph does not call it on one tensor."""
        call = self.calls.get(id(layer))
        if call is None or len(call.inputs) != 1:
            return None
        if self.left <= 0:
            return _missing("the layers above took the time that this page has for it")
        if not all(np.isfinite(ops.convert_to_numpy(weight)).all() for weight in layer.weights):
            return _missing("the layer has weights that are not finite")
        start = time.monotonic()
        try:
            return self._found(layer, call)
        except Exception as error:  # of whatever kind the code of the layer or of those before it raises
            return _missing(str(error).partition("\n")[0].rstrip("."))
        finally:
            self.left -= time.monotonic() - start

    def _found(self, layer: keras.layers.Layer, call: Call) -> Inverse:
        x = ops.convert_to_tensor(self.sample[None])
        if call.inputs[0] is not self.graph.inputs[0]:
            x = keras.Model(self.graph.inputs, call.inputs[0])(x, training=False)
        if not np.isfinite(ops.convert_to_numpy(x)).all():
            return _missing("what the layers before it make of the sample is not finite")
        A = operator(layer, linear_part=True, size=tuple(x.shape[1:]))
        steps = int(min(MOST_STEPS, WORK / (2 * multiplications(layer, A))))
        if steps < FEWEST_STEPS:
            return _missing("it takes long for this layer. `keras_adjoint.pinv(layer)` computes it")
        y = A @ x
        with warnings.catch_warnings(action="ignore"):  # the caption says whether it converged
            solution = lstsq(A, y, max_steps=steps)
        converged = bool(ops.convert_to_numpy(solution.converged)[0])
        how = "" if converged else f", not converged after {steps} steps"
        taken, adjoint, inverse = (
            np.asarray(ops.convert_to_numpy(each)[0], "float64") for each in (x, A.T @ y, solution.x)
        )
        return Inverse(_panels(layer.name, taken, adjoint, inverse, how))


def multiplications(layer: keras.layers.Layer, A: Operator) -> float:
    """About how many multiplications A x takes: those of a dense layer or a convolution."""
    weights = max((math.prod(weight.shape) for weight in layer.weights), default=1)
    filters = getattr(layer, "filters", None) or getattr(layer, "units", None) or 1
    return float(weights) * max(1.0, A.shape[0] / filters)


def _missing(why: str) -> Inverse:
    return Inverse(note=f"Not computed: {why}.")


def _panels(name: str, x: np.ndarray, adjoint: np.ndarray, inverse: np.ndarray, how: str) -> list[Panel]:
    limits = float(x.min()), float(x.max())
    limits = limits if limits[0] < limits[1] else (limits[0] - 0.5, limits[0] + 0.5)
    found = [_panel("what it takes", f"{limits[0]:.2g} to {limits[1]:.2g}", x, limits, f"What {name} takes")]
    for title, values, note in (("adjoint", adjoint, ""), ("pseudo-inverse", inverse, how)):
        compared = Comparison(x, values, limits)
        fitted, plain = (in_decibels(compared.psnr(fit=fit)) for fit in (True, False))
        caption = f"PSNR {fitted}, unadjusted {plain}{note}"
        found.append(_panel(title, caption, compared.fitted, limits, f"The {title} of what {name} gives"))
    return found


def _panel(title: str, caption: str, values: np.ndarray, limits: tuple[float, float], alt: str) -> Panel:
    drawn: Any = drawable(values)
    if is_curve(values):
        part, where = middle(len(drawn))
        curves = [points(curve[part], limits) for curve in drawn.T[:CURVES]]
        return Panel(title, f"{caption}{where}", None, curves, alt)
    return Panel(title, caption, photograph((drawn - limits[0]) / (limits[1] - limits[0]), alt), [], alt)
