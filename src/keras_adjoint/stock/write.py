"""Which function writes out which adjoint layer."""

from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.conv_transpose import AdjointConvTranspose
from keras_adjoint.layers.deconvnet import RecordedSign, SelectedFeatures
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
from keras_adjoint.layers.shape import AdjointRepeatVector, AdjointReshape, AdjointZeroPadding1D
from keras_adjoint.layers.switches import AdjointGlobalMaxPooling, AdjointMaxPooling
from keras_adjoint.layers.upsampling import AdjointUpSampling
from keras_adjoint.stock import conv, merge, others
from keras_adjoint.stock.steps import refuse

KINDS = tuple(conv.WAYS)

WRITERS = {
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
    AdjointSum: merge.weighted_sum,
    AdjointConcatenate: merge.concatenation,
}

REFUSED = {
    unpooling: "no stock layer finds the switches. Use average pooling or a stride in a model that you will untie"
    for unpooling in (AdjointMaxPooling, AdjointGlobalMaxPooling)
}


OTHERS = (RecordedSign, SelectedFeatures)  # layers of ours that are no adjoints, and no arrangement of stock layers


def writer_for(tied):
    """The function that writes out an adjoint layer.

    Raises:
        NoRuleError: If there is none.
    """
    if type(tied) not in WRITERS:
        refuse(tied, REFUSED.get(type(tied), "no arrangement of them is known that computes it"))
    return WRITERS[type(tied)]
