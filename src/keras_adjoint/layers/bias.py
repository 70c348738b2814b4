"""What an adjoint does with biases."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import one_of
from keras_adjoint.kernels import BIAS_MODES
from keras_adjoint.kernels.channels import adapter_matrix
from keras_adjoint.kernels.layouts import adapt_bias
from keras_adjoint.layers.copying import check_has_numbers
from keras_adjoint.ops import Tensor

READS_SOURCE = ("subtract", "repeat", "average", "learned")
STARTS_FROM_SOURCE = ("repeat", "average")
ADD_NOTHING = ("none", "subtract")


def check_mode(mode: str, source: keras.layers.Layer) -> None:
    """Raise a ValueError unless `mode` exists and the source has the bias that it starts from."""
    one_of("bias", mode, BIAS_MODES)
    if mode in ("repeat", "average", "learned") and getattr(source, "bias", None) is None:
        raise ValueError(
            f'The source has no bias that another could start from; use `bias="own"`. Received: bias={mode!r}, '
            f"source={source.name!r} with use_bias=False"
        )


def growing_or_shrinking(size: int, target: int) -> str:
    """The adapter that `learned` maps start at: "repeat" where channels are added, "average" where they are merged."""
    return "repeat" if target >= size else "average"


def add_bias(layer: keras.layers.Layer, mode: str, source: keras.layers.Layer, size: int) -> keras.Variable:
    """Give `layer` a bias of `size` channels of its own, which starts from the source's for "repeat" and "average"."""
    start = np.zeros(size)
    if mode in STARTS_FROM_SOURCE:
        check_has_numbers(source, f'`bias="{mode}"`')
        adapter_matrix(
            source.bias.shape[0], size, mode, argument="bias"
        )  # its errors speak of the option that was given
        start = adapt_bias(ops.convert_to_numpy(source.bias), size, mode)
    return layer.add_weight(name="bias", shape=(size,), initializer=constant(start))


def add_bias_map(layer: keras.layers.Layer, source: keras.layers.Layer, size: int) -> keras.Variable:
    """Give `layer` a trainable map from the source's bias to one of `size` channels."""
    start = adapter_matrix(source.bias.shape[0], size, growing_or_shrinking(source.bias.shape[0], size))
    return layer.add_weight(name="bias_map", shape=start.shape, initializer=constant(start))


def constant(value: np.ndarray) -> Callable[..., Tensor]:
    """An initializer that gives `value`."""
    return lambda shape, dtype=None: ops.convert_to_tensor(np.asarray(value, "float64"), dtype=dtype)
