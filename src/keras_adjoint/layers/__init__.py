"""The tied Keras layers and their rules, one file per family. Importing this package fills the registry."""

from keras_adjoint.layers import (  # noqa: F401
    affine,
    conv,
    conv_transpose,
    dense,
    depthwise,
    global_pooling,
    merge,
    norm,
    pooling,
    selection,
    shape,
    sign,
    spread,
    switches,
    upsampling,
)
