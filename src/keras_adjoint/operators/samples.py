"""Whether a model keeps the samples of a batch apart, as everything does that is said about one sample."""

from typing import Any

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

Array = NDArray[Any]


def mixes_samples(model: keras.Model) -> bool:
    """Whether what a model gives for the first of two samples changes with the second one, or is not one of two.

    Args:
        model: A model of known sizes. One of a fixed batch size is not asked.
    """
    if any(x.shape[0] is not None or "str" in x.dtype for x in model.inputs):
        return False
    generator = np.random.default_rng(0)
    first, second = ([_random(x, generator) for x in model.inputs] for _ in range(2))

    def given(other: list[Array]) -> list[Array]:
        both = [np.concatenate(pair) for pair in zip(first, other, strict=True)]
        packed = both[0] if isinstance(model, keras.Sequential) else tree.pack_sequence_as(model.input, both)
        found = tree.flatten(model(packed, training=False))
        return [np.asarray(ops.convert_to_numpy(ops.cast(y, "float32"))) for y in found]

    pairs = zip(given(first), given(second), strict=True)
    return any(len(a) != 2 or not np.allclose(a[0], b[0], rtol=1e-4, atol=1e-6, equal_nan=True) for a, b in pairs)


def _random(x: keras.KerasTensor, generator: np.random.Generator) -> Array:
    """A random sample; of integers zeros and ones, which every embedding has."""
    shape, is_float = (1, *x.shape[1:]), "float" in x.dtype
    return np.asarray(generator.standard_normal(shape) if is_float else generator.integers(0, 2, shape)).astype(
        "float32" if is_float else x.dtype
    )
