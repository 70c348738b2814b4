"""What an adjoint does with biases."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_adjoint.kernels.channels import adapter_matrix
from keras_adjoint.kernels.layouts import adapt_bias
from keras_adjoint.ops import Tensor

MODES = ("none", "own", "subtract", "repeat", "average", "learned")
READS_SOURCE = ("subtract", "repeat", "average", "learned")
STARTS_FROM_SOURCE = ("repeat", "average")


def check_mode(mode: str, source: keras.layers.Layer) -> None:
    """Raise a ValueError unless `mode` exists and the source has the bias that it starts from."""
    if mode not in MODES:
        raise ValueError(f"`bias` must be one of {', '.join(MODES)}. Received: bias={mode!r}")
    if mode in ("repeat", "average", "learned") and getattr(source, "bias", None) is None:
        raise ValueError(
            f'The source has no bias that another could start from; use `bias="own"`. Received: bias={mode!r}, '
            f"source={source.name!r} with use_bias=False"
        )


def growing_or_shrinking(size: int, target: int) -> str:
    """The adapter that `learned` maps start at: "repeat" where channels are added, "average" where they are merged."""
    return "repeat" if target >= size else "average"


def add_weights(
    layer: keras.layers.Layer, mode: str, source: keras.layers.Layer, size: int
) -> Callable[[], Tensor] | None:
    """Give `layer` the weights that `mode` needs for a bias of `size` channels.

    Returns:
        A function without arguments that gives the bias to add, or `None` if the mode adds none.
    """
    if mode in ("none", "subtract"):
        return None
    if mode == "learned":
        start = adapter_matrix(source.bias.shape[0], size, growing_or_shrinking(source.bias.shape[0], size))
        bias_map = layer.add_weight(name="bias_map", shape=start.shape, initializer=constant(start))
        return lambda: ops.sum(ops.expand_dims(source.bias, -1) * bias_map, axis=0)
    start = np.zeros(size)
    if mode in STARTS_FROM_SOURCE:
        start = adapt_bias(keras.ops.convert_to_numpy(source.bias), size, mode)
    bias = layer.add_weight(name="bias", shape=(size,), initializer=constant(start))
    return lambda: bias


def constant(value: np.ndarray) -> Callable[..., Tensor]:
    """An initializer that gives `value`."""
    return lambda shape, dtype=None: ops.convert_to_tensor(np.asarray(value, "float64"), dtype=dtype)
