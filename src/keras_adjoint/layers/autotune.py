"""`autotune`: measure the algorithms of one layer on this machine, and keep the fastest in the layer."""

import math
import statistics
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.options import as_integer, is_real_number, items_of
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.algorithms.choose import ALGORITHMS
from keras_adjoint.ops.backend import current, untraced


@untraced
def autotune(layer: keras.layers.Layer, shape: Sequence[int], *, seconds: float = 0.2) -> dict[str, float]:
    """Measure every algorithm of an adjoint convolution, and set the fastest in the layer.

    The choice is kept in the layer's config, so that it is saved with the model. A model that has been compiled or traced
    before goes on as it was: tune first, or call `compile` again. Algorithms are timed as they mostly run: compiled on JAX
    and TensorFlow, operation by operation on PyTorch.

    Args:
        layer: The adjoint of a convolution, made by `keras_adjoint.adjoint` or found in a mirrored model.
        shape: Shape of the layer's input, batch included: `(batch, *outputs, filters)`, or channels first as the source.
        seconds: How long to time each algorithm.

    Returns:
        Seconds of every algorithm that fits, by name, the fastest first. They are medians of repeats that take turns.

    Raises:
        ValueError: If the layer is not the adjoint of a convolution, or the shape is not one of its inputs.

    Example:

    >>> conv = keras.layers.Conv2D(8, 3, strides=2)
    >>> features = conv(np.ones((1, 9, 9, 3)))
    >>> decode = ka.adjoint(conv)
    >>> times = ka.autotune(decode, (1, 4, 4, 8), seconds=0.01)
    >>> decode.algorithm == next(iter(times))
    True
    """
    if not isinstance(layer, AdjointConv):
        raise ValueError(
            "`autotune` takes the adjoint of a convolution, as `keras_adjoint.adjoint(conv)` makes it. "
            f"Received: layer={layer!r} of type {type(layer).__name__}"
        )
    sizes = [as_integer(size) or 0 for size in items_of(shape)]
    if len(sizes) != layer.rank + 2 or min(sizes) < 1:
        raise ValueError(
            f"`autotune` needs every size of the input, {layer.rank + 2} with the batch. Received: shape={shape!r}"
        )
    if not is_real_number(seconds) or not 0 <= seconds < math.inf:
        raise ValueError(f"`seconds` must be a number from 0 on. Received: seconds={seconds!r}")
    layer.compute_output_shape(tuple(sizes))  # raises for shapes that the layer does not take
    y = ops.convert_to_tensor(np.random.default_rng(0).standard_normal(tuple(sizes)), dtype=layer.compute_dtype)
    before = layer.algorithm
    runs: dict[str, Callable[[], None]] = {}
    try:
        for name in fitting(layer, y):
            runs[name] = _run(layer, name, y)
            runs[name]()
    finally:
        layer.algorithm = before
    medians = dict(sorted(_medians(runs, seconds).items(), key=lambda item: item[1]))
    layer.algorithm = next(iter(medians))
    return medians


def fitting(layer: AdjointConv, y: Tensor) -> list[str]:
    """Names of the algorithms that can compute the layer's adjoint of a tensor."""
    outputs = layer.to_channels_last(y).shape[1:-1]
    problem = layer.problem(layer.resolve(tuple(outputs)), y.shape[0], current().device_of(y))
    return [algorithm.name for algorithm in ALGORITHMS if algorithm.fits(problem)]


def _run(layer: AdjointConv, name: str, y: Tensor) -> Callable[[], None]:
    backend = current()

    def apply(y: Tensor) -> Tensor:
        layer.algorithm = name
        return layer(y)

    function = backend.compiled(apply)
    return lambda: backend.wait(function(y))


def _medians(runs: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Median times of functions that take turns, so that a drift of the machine meets all alike."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or len(samples[next(iter(runs))]) < 3:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            samples[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in samples.items()}
