"""The table of rules: which function says of a call how its blocks are read and computed, or why there are none."""

from collections.abc import Callable, Container
from typing import Any, TypeAlias

import keras

from keras_adjoint.blocks import moves, pointwise, transposed, windows
from keras_adjoint.blocks.rule import Rule
from keras_adjoint.blocks.sized_call import SizedCall
from keras_adjoint.errors import NoRuleError
from keras_adjoint.keras_internals import existing, numpy_operations
from keras_adjoint.layers.activations import ActivationGradient, PreActivation
from keras_adjoint.layers.adjoint_of_adjoint import AdjointOfAdjoint, first_source
from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.conv_transpose import AdjointConvTranspose
from keras_adjoint.layers.dense import AdjointEinsumDense
from keras_adjoint.layers.depthwise import AdjointDepthwiseConv, AdjointSeparableConv
from keras_adjoint.layers.merge import AdjointConcatenate, AdjointSum
from keras_adjoint.layers.pooling import AdjointAveragePooling, SpreadPooling
from keras_adjoint.layers.registry import nearest_class
from keras_adjoint.layers.shape import AdjointZeroPadding1D
from keras_adjoint.layers.switches import AdjointGlobalMaxPooling, AdjointMaxPooling
from keras_adjoint.layers.tied import Tied, without_additions
from keras_adjoint.layers.upsampling import AdjointUpSampling
from keras_adjoint.layers.wrapped import WRAPPERS, scales_inside

L = keras.layers
MakeRule: TypeAlias = Callable[[SizedCall, Any], Rule]

RULES: dict[type, MakeRule] = {
    **dict.fromkeys((L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D), windows.convolution),
    **dict.fromkeys((L.SeparableConv1D, L.SeparableConv2D), windows.convolution),
    **dict.fromkeys((L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D), windows.maximum),
    **dict.fromkeys((L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D), windows.average),
    AdjointConvTranspose: windows.adjoint_of_transposed,
    **dict.fromkeys((AdjointConv, AdjointDepthwiseConv, AdjointSeparableConv), transposed.adjoint_convolution_rule),
    **dict.fromkeys((L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), transposed.transposed_convolution),
    AdjointAveragePooling: transposed.adjoint_of_average,
    AdjointMaxPooling: transposed.adjoint_of_maximum,
    ActivationGradient: pointwise.activation_gradient,
    SpreadPooling: moves.spread,
    **dict.fromkeys((L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D), moves.padded),
    **dict.fromkeys((L.Cropping1D, L.Cropping2D, L.Cropping3D), moves.cropped),
    AdjointZeroPadding1D: moves.adjoint_of_padding,
    **dict.fromkeys((L.UpSampling1D, L.UpSampling2D, L.UpSampling3D), moves.upsampled),
    AdjointUpSampling: moves.adjoint_of_upsampling,
    L.Permute: moves.permuted,
    **dict.fromkeys((AdjointSum, AdjointConcatenate), moves.share_of_merge),
    **dict.fromkeys(pointwise.MIXED, pointwise.pointwise),
    **dict.fromkeys(pointwise.EMBEDDINGS, pointwise.embedded),
    **dict.fromkeys((L.EinsumDense, AdjointEinsumDense), pointwise.contracted),
    L.Concatenate: pointwise.joined,
}
OPERATIONS: dict[type, MakeRule] = {
    **dict.fromkeys(pointwise.OPERATIONS, pointwise.pointwise),
    **dict.fromkeys(existing(numpy_operations, "Concatenate"), pointwise.joined),
}

REFUSED: dict[tuple[type, ...], str] = {
    tuple(existing(L, *(f"Global{kind}Pooling{rank}D" for kind in ("Average", "Max") for rank in (1, 2, 3)))): (
        "it pools over all positions, so that what it gives depends on the whole array"
    ),
    (AdjointGlobalMaxPooling,): "where it puts back a maximum depends on the whole array",
    (L.Flatten, L.Reshape): "it puts positions where channels are, so that what follows may depend on the whole array",
    tuple(existing(L, "Attention", "AdditiveAttention", "MultiHeadAttention", "GroupQueryAttention")): (
        "every position attends to all others, so that it depends on the whole array"
    ),
    (L.RNN, L.Bidirectional): "every step depends on all steps before it",
}


def rule_of(call: SizedCall, space: Container[int]) -> Rule:
    """What is known of a call.

    Args:
        call: A call.
        space: The axes of its inputs along which blocks are cut.

    Raises:
        NoRuleError: If there is no rule for it.
    """
    operation = call.operation
    is_layer = isinstance(operation, keras.layers.Layer)
    layer = computing_layer(operation) if is_layer else operation
    exact = not is_layer or isinstance(layer, Tied)  # adjoint layers are of no classes but this package's
    found = type(layer) if exact else nearest_class(layer, RULES)
    make = (RULES if is_layer else OPERATIONS).get(found) if found is not None else None
    if make is None and not any(axis in space for shape in call.in_shapes for axis in range(len(shape))):
        return Rule(tuple((None,) * len(shape) for shape in call.in_shapes))  # nothing is cut
    if make is None:
        kind = type(operation).__name__
        why = next((why for classes, why in REFUSED.items() if isinstance(layer, classes)), None)
        unknown = f"on which positions of its input a position of what {kind} gives depends is not known"
        raise NoRuleError(
            f"`{call.place}` cannot be applied in blocks: {why or unknown}. Apply the layers before it in blocks, and what "
            f"follows to the result. Received: {call.describe()}"
        )
    return make(call, layer)


def computing_layer(layer: Any) -> Any:
    """The layer that says how a layer computes, without what is around it."""
    while isinstance(layer, WRAPPERS) and not isinstance(layer, L.TimeDistributed) and not scales_inside(layer):
        layer = layer.layer
    if isinstance(layer, AdjointOfAdjoint):
        return computing_layer(without_additions(first_source(layer)))
    return layer.linear if isinstance(layer, PreActivation) else layer
