"""The tied Keras layers and their rules, one file per family. Importing this package fills the registry."""

from keras_adjoint.layers import (  # noqa: F401
    conv,
    conv_transpose,
    deconvnet,
    dense,
    depthwise,
    global_pooling,
    merge,
    norm,
    pooling,
    shape,
    switches,
    upsampling,
)
