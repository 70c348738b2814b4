"""Which function converts which adjoint layer into stock layers."""

from collections.abc import Callable
from functools import partial

from keras.layers import Layer

from keras_adjoint.layers.adjoint_of_adjoint import AdjointOfAdjoint
from keras_adjoint.layers.automatic import AutomaticAdjoint
from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.conv_transpose import AdjointConvTranspose
from keras_adjoint.layers.dense import AdjointDense, AdjointEinsumDense, AdjointEmbedding
from keras_adjoint.layers.depthwise import AdjointDepthwiseConv, AdjointSeparableConv
from keras_adjoint.layers.global_pooling import AdjointGlobalAveragePooling, BroadcastGlobalPooling
from keras_adjoint.layers.merge import AdjointConcatenate, AdjointSum
from keras_adjoint.layers.norm import (
    AdjointAffinePart,
    AdjointBatchNormalization,
    AdjointLayerScale,
    AdjointNormalization,
    AdjointRescaling,
)
from keras_adjoint.layers.pooling import AdjointAveragePooling, SpreadPooling
from keras_adjoint.layers.registered import RegisteredAdjoint
from keras_adjoint.layers.shape import AdjointRepeatVector, AdjointReshape, AdjointZeroPadding1D
from keras_adjoint.layers.switches import AdjointGlobalMaxPooling, AdjointMaxPooling
from keras_adjoint.layers.upsampling import AdjointUpSampling
from keras_adjoint.operators.adjoint_lipschitz import AdjointLipschitz
from keras_adjoint.operators.from_scipy import FromSciPy
from keras_adjoint.stock import conv, others, wrapped
from keras_adjoint.stock.steps import UNKNOWN, AdjointCall, Branches, Step, refuse

KINDS = tuple(conv.KINDS)

CONVERTERS: dict[type, Callable[[AdjointCall], list[Step] | Branches]] = {
    AdjointConv: conv.conv,
    AdjointDepthwiseConv: conv.conv,
    AdjointSeparableConv: conv.conv,
    AdjointConvTranspose: conv.conv_transpose,
    AdjointDense: others.dense,
    AdjointEmbedding: others.embedding,
    AdjointEinsumDense: others.einsum_dense,
    AdjointBatchNormalization: others.scaling,
    AdjointNormalization: others.scaling,
    AdjointRescaling: others.scaling,
    AdjointLayerScale: others.scaling,
    AdjointReshape: others.reshape,
    AdjointRepeatVector: others.repeat_vector,
    AdjointZeroPadding1D: others.zero_padding_1d,
    AdjointAveragePooling: others.average_pooling,
    AdjointGlobalAveragePooling: others.global_average_pooling,
    AdjointUpSampling: others.up_sampling,
    AdjointAffinePart: others.scaling,
    SpreadPooling: others.spread_pooling,
    BroadcastGlobalPooling: others.broadcast_global_pooling,
    AdjointSum: others.weighted_sum,
    AdjointConcatenate: others.concatenation,
    AdjointOfAdjoint: others.forward,
    AutomaticAdjoint: others.automatic,
}

_NO_SWITCHES = (
    'no stock layer finds the switches. In a model that you will untie, use `pooling="spread"` or "average" in the mirror, '
    "average pooling, or a stride"
)

REFUSED: dict[type, str] = {
    AdjointMaxPooling: _NO_SWITCHES,
    AdjointGlobalMaxPooling: _NO_SWITCHES,
    RegisteredAdjoint: "its registered rule returned a layer that reads the variables of the source, of which no stock layer "
    "is known. Have the rule return stock layers, or adjoints of parts of the source",
}

NOT_STOCK: dict[type, str] = {FromSciPy: "it calls an operator of SciPy on the host, which no layer of Keras does"}


def converter_for(tied: Layer) -> Callable[[AdjointCall], list[Step] | Branches]:
    """The function that converts an adjoint layer.

    Raises:
        NoRuleError: If there is none.
    """
    unpooling = tied.source if isinstance(tied, AdjointOfAdjoint) else tied
    if isinstance(tied, AdjointLipschitz):
        return partial(wrapped.adjoint_lipschitz, convert=converter_for)
    if isinstance(tied, AdjointOfAdjoint) and isinstance(tied.source, AdjointLipschitz):
        return partial(wrapped.lipschitz_forward, convert=converter_for)
    if type(tied) not in CONVERTERS or type(unpooling) in REFUSED:
        refuse(tied, REFUSED.get(type(unpooling), UNKNOWN))
    return CONVERTERS[type(tied)]
