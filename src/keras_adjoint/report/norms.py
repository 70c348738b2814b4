"""The norm of a layer and a bound of it, as far as they are cheap: a page about a large network takes no minutes for them."""

import math
import time
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from keras_adjoint.models.text import size_text
from keras_adjoint.operators.certificate import at_most
from keras_adjoint.operators.eigenvalues import SQUARINGS
from keras_adjoint.operators.layer_convolutions import layer_convolution
from keras_adjoint.operators.layer_operator import LayerOperator
from keras_adjoint.operators.model_operator import operator
from keras_adjoint.operators.operator import Operator
from keras_adjoint.operators.symbol import grids_of

SECONDS = 20.0  # for all layers of a page together
WORK = 2e9  # about how many multiplications the bound of one layer may cost
SIDE, NUMBERS = 512, 2**20  # of a matrix whose norm is computed


class Norms:
    """Norms and bounds in words, as long as there is time for them."""

    def __init__(self) -> None:
        self.left = SECONDS

    def of(self, layer: keras.layers.Layer) -> Iterator[tuple[str, str]]:
        """(what, how much in words) of a layer with a kernel."""
        start = time.monotonic()
        try:
            yield from self._found(layer)
        finally:
            self.left -= time.monotonic() - start

    def _found(self, layer: keras.layers.Layer) -> Iterator[tuple[str, str]]:
        if not all(np.isfinite(ops.convert_to_numpy(weight)).all() for weight in layer.weights):
            return  # which the page says elsewhere
        try:
            found = operator(layer, linear_part=True)
            if self.left <= 0 or work_of_bound(found) > WORK:
                yield "norm", "not computed for this page, as it takes long; `keras-adjoint spectrum` computes it"
                return
            bound = float(ops.convert_to_numpy(found.bound()))
            norm = norm_of_small(found)
        except Exception:  # of several sizes or of none, not linear, or of whatever kind the layer's own code raises
            return
        if norm is not None:
            yield "norm", f"{norm:.4g}"
        yield "norm at most", f"{at_most(bound)}, for inputs of {' and '.join(map(size_text, found.in_space.shapes))}"


def norm_of_small(found: Operator) -> float | None:
    """The norm of an operator whose matrix is small."""
    if min(found.shape) > SIDE or math.prod(found.shape) > NUMBERS:
        return None
    return float(np.linalg.norm(found.to_matrix().astype("float64"), 2))


def work_of_bound(found: Operator) -> float:
    """About how many multiplications the bound of a layer costs."""
    if not isinstance(found, LayerOperator):
        return math.prod(found.shape)
    convolution = layer_convolution(*found.adjoint_first()[0])
    if convolution is None:
        weights = [math.prod(weight.shape) for weight in found.source.weights]
        side = min(max(weights, default=1) ** 0.5, *found.shape)
        return 2 * SQUARINGS * side**3
    channels, filters = map(int, convolution.kernel.shape[-2:])
    geometry = convolution.convolution
    rows = min(filters // geometry.groups, channels * math.prod(axis.stride for axis in geometry.axes))
    blocks = sum(len(grid.values) for grid in grids_of(geometry, channels, filters // geometry.groups))
    return 3 * SQUARINGS * float(blocks) * geometry.groups * rows**3
