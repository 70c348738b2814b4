"""What models give for random inputs, compared."""

from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adjoint.errors import in_short
from keras_adjoint.keras_internals import layers_inside
from keras_adjoint.models.graph import graph_of
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.precision import epsilon

SIZES = (12, 32, 64, 224)  # unknown sizes are tried one after the other, since not every model takes small inputs


class Refused(Exception):
    """A repair would change what it must not. The message says by how much."""


def rounding(dtype: str) -> float:
    """What rounding may leave of a difference: half of the digits, since it grows from layer to layer."""
    return float(np.sqrt(epsilon(dtype)))


def rounding_of_model(model: keras.Model) -> float:
    """The same for a model: its least precise layer decides."""
    dtypes = {layer.compute_dtype for layer in layers_inside(model) if "float" in (layer.compute_dtype or "")}
    return max(map(rounding, dtypes), default=rounding(keras.config.floatx()))


def compare_models(model: keras.Model, repaired: keras.Model) -> float | None:
    """The largest difference between the outputs of two models, in size of the largest output.

    `None` if the first one does not run, so that there is nothing to compare with.

    Raises:
        Refused: If the second one does not run, or its outputs have other shapes.
    """
    inputs = random_inputs(repaired)
    try:
        before = outputs(model, inputs)
    except Exception:
        return None
    return largest_difference(before, outputs(repaired, inputs))


def outputs(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    return [ops.convert_to_numpy(y).astype("float64") for y in keras.tree.flatten(model(inputs, training=False))]


def largest_difference(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    """The largest difference between lists of arrays, relative to the largest finite number in the first.

    It is infinite if a number is finite in one of them alone.
    """
    shapes = [[y.shape for y in arrays] for arrays in (before, after)]
    if shapes[0] != shapes[1]:
        raise Refused(f"it would return {shapes[1]} where it returned {shapes[0]}")
    scale = max((np.abs(y).max(where=np.isfinite(y), initial=0.0) for y in before), default=0.0) or 1.0
    return float(max(map(_difference, before, after), default=0.0) / scale)


def _difference(before: np.ndarray, after: np.ndarray) -> float:
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    if not np.isfinite([before, after]).all(axis=0, where=~same).all():
        return np.inf
    return float(np.abs(np.subtract(before, after, where=~same, out=np.zeros_like(before))).max(initial=0.0))


def random_inputs(model: keras.Model) -> Any:
    """Random numbers of the shapes and dtypes that a Functional or Sequential model takes, in its structure."""
    graph = graph_of(model)
    if graph is None:
        raise Refused("it has no graph of layers, which would say what it takes")
    error = Exception()
    for size in SIZES:
        tensors = keras.tree.map_structure(partial(random_input, model, size), graph.input)
        try:
            model(tensors, training=False)
        except Exception as reason:
            error = reason
        else:
            return tensors
    raise Refused(f"it does not run on random inputs: {in_short(error)}")


def random_input(model: keras.Model, unknown: int, x: keras.KerasTensor) -> Tensor:
    """Random numbers for one input; for embeddings, indices that each of them has."""
    generator = np.random.default_rng(0)
    shape = (x.shape[0] or 2, *(size or unknown for size in x.shape[1:]))
    dtype = keras.backend.standardize_dtype(x.dtype)
    if "float" in dtype:
        return ops.convert_to_tensor(generator.standard_normal(shape), dtype=dtype)
    counts = [layer.input_dim for layer in layers_inside(model) if isinstance(layer, keras.layers.Embedding)]
    return ops.convert_to_tensor(generator.integers(0, min(counts, default=2), shape), dtype=dtype)
