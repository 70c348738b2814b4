"""The norms of the linear layers of a model: what `keras-adjoint spectrum` prints, and the report shows."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.conv_transpose import AdjointConvTranspose
from keras_adjoint.layers.dense import AdjointDense, AdjointEinsumDense, AdjointEmbedding
from keras_adjoint.layers.depthwise import AdjointDepthwiseConv, AdjointSeparableConv
from keras_adjoint.layers.norm import AdjointScaling
from keras_adjoint.models.calls import Call
from keras_adjoint.operators.call_constants import Step
from keras_adjoint.operators.layer_bounds import rounding_of
from keras_adjoint.operators.layer_convolutions import kernel_of
from keras_adjoint.operators.layer_operator import LayerOperator, layer_operator
from keras_adjoint.operators.lipschitz import Lipschitz
from keras_adjoint.operators.operator import ABOVE
from keras_adjoint.ops import Shape

SMALL_SIDE, SMALL = 512, 2**22  # of a matrix whose smallest singular value is computed
LARGEST_SIDE = 2048  # of a reshaped kernel whose norm is computed
WITH_KERNEL = (
    *(AdjointConv, AdjointConvTranspose, AdjointDepthwiseConv),
    *(AdjointDense, AdjointEinsumDense, AdjointEmbedding),
)


@dataclass(frozen=True)
class LayerSpectrum:
    """The norm of one linear layer at one size, or of the linear part of a layer with an activation.

    Attributes:
        layer: Its name, with those of the models around it.
        type: Its type.
        inputs: The shapes that it takes, with `None` for the batch axis.
        outputs: The shapes that it gives.
        norm: The norm, estimated from below.
        bound: A number that is never below the norm.
        condition: The largest singular value over the smallest one; infinite where that is zero.
        reshaped_norm: The norm of the kernel as a matrix, all but its last axis in one, which is that of another operator.
        reason: Why there is no norm or no bound, or "".
        condition_reason: Why there is no condition, or "".
    """

    layer: str
    type: str
    inputs: list[Shape]
    outputs: list[Shape]
    norm: float | None = None
    bound: float | None = None
    condition: float | None = None
    reshaped_norm: float | None = None
    reason: str = ""
    condition_reason: str = ""


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer of a model, at one size.

    Attributes:
        name: Its name, with those of the models around it.
        layer: The layer.
        inputs: The shapes that it takes, without the batch axis.
        outputs: The shapes that it gives.
        bound: The bound of its linear part.
    """

    name: str
    layer: keras.layers.Layer
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    bound: float


def linear_layers(steps: Mapping[Call, Step]) -> Iterator[LinearLayer]:
    """The linear layers among some calls that have weights, or a norm other than 1: those that move numbers alone have not.

    A layer that is called at several sizes comes up once for each.
    """
    seen = set()
    for call, step in steps.items():
        layer, inputs, outputs = call.operation, _shapes(call.inputs), _shapes(call.outputs)
        if step.linear is None or not isinstance(layer, keras.layers.Layer) or (id(layer), inputs) in seen:
            continue
        seen.add((id(layer), inputs))
        if layer.weights or abs(step.linear - 1) > 1e-5:
            yield LinearLayer(call.path or layer.name, layer, inputs, outputs, step.linear)


def _shapes(tensors: list[keras.KerasTensor]) -> tuple[Shape, ...]:
    return tuple(tuple(tensor.shape[1:]) for tensor in tensors)


def spectrum_of(found: LinearLayer, *, norms: bool = True) -> LayerSpectrum:
    """The `LayerSpectrum` of a linear layer.

    Args:
        found: The layer.
        norms: Whether to compute the norm and the condition, which take longer than the bound.
    """
    inputs, outputs = ([(None, *shape) for shape in each] for each in (found.inputs, found.outputs))
    values: dict[str, Any] = {"bound": found.bound}
    try:
        operator, factor = _operator_of(found)
        values["reshaped_norm"] = _of_reshaped_kernel(operator, factor)
        if norms:
            norm, condition = _norm_and_condition(operator)
            values |= {"norm": min(factor * norm, found.bound)} | condition
    except Exception as error:  # of whatever kind a layer's own code raises
        values["reason"] = str(error) or type(error).__name__
    return LayerSpectrum(found.name, type(found.layer).__name__, inputs, outputs, **values)


def _operator_of(found: LinearLayer) -> tuple[Any, float]:
    """(the operator of a layer's linear part, what it is multiplied by)."""
    layer, shapes = found.layer, list(found.inputs)
    size = shapes[0] if len(shapes) == 1 else shapes
    if isinstance(layer, Lipschitz):
        factor = float(ops.convert_to_numpy(layer.factor((None, *shapes[0]))))
        return layer.operator_at((None, *shapes[0])), factor
    return layer_operator(layer, size, linear_part=True), 1.0


def _norm_and_condition(operator: Any) -> tuple[float, dict[str, Any]]:
    """(the norm, the condition or why there is none), from the matrix where that is small."""
    rows, columns = operator.shape
    if min(rows, columns) > SMALL_SIDE or rows * columns > SMALL:
        most = f"its smaller side is limited to {SMALL_SIDE}, and its size to {SMALL:,} numbers"
        reason = {"condition_reason": f"not computed, as the matrix is too large: {most}"}
        norm = operator.bounded() / ABOVE if _is_diagonal(operator) else operator.norm()
        return float(ops.convert_to_numpy(norm)), reason
    norm, condition = operator.norm_and_condition()
    lost = "" if math.isfinite(condition) else "infinite, as the smallest singular value is zero up to rounding"
    return norm, {"condition": condition, "condition_reason": lost}


def _is_diagonal(operator: Any) -> bool:
    """Whether a layer multiplies each number by another one, so that its bound is its norm, but for rounding."""
    if not isinstance(operator, LayerOperator):
        return False
    made = operator.adjoint_first()[0][0]
    return isinstance(made, AdjointScaling) and rounding_of(made.compute_dtype) == 1


def _of_reshaped_kernel(operator: Any, factor: float) -> float | None:
    """The norm of the kernel as Keras' `SpectralNormalization` reshapes it, where there is one and it is no huge matrix."""
    made = operator.adjoint_first()[0][0] if isinstance(operator, LayerOperator) else None
    if not isinstance(made, WITH_KERNEL) or isinstance(made, AdjointSeparableConv):
        return None
    kernel = np.asarray(ops.convert_to_numpy(kernel_of(made)), "float64")
    matrix = kernel.reshape(-1, kernel.shape[-1])
    if min(matrix.shape) > LARGEST_SIDE:
        return None
    narrow = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return factor * math.sqrt(max(0.0, float(np.linalg.eigvalsh(narrow.T @ narrow)[-1])))
