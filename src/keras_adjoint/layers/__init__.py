"""The adjoint layers and their rules, one file per family: a rule is a function or class under `@rule(keras.layers.X)`.

`registry.py` finds the rule of a layer, `tied.py` has the base of all layers that read the kernel of another, and `adjoint.py`
makes the adjoint of one layer. Importing this package fills the registry.
"""

from keras_adjoint.layers import (  # noqa: F401
    conv,
    conv_transpose,
    deconvnet,
    dense,
    depthwise,
    global_pooling,
    inference,
    merge,
    norm,
    pooling,
    selection,
    shape,
    switches,
    upsampling,
    wrappers,
)
