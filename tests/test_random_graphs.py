"""`adjoint(model)` of graphs that are wired at random, against the dense matrix and autodiff, and after saving and loading."""

import tempfile
from pathlib import Path

import autodiff
import keras
import numpy as np
import pytest
from helpers import compiled
from hypothesis import given, settings
from keras import ops, tree
from random_graphs import graphs

import keras_adjoint as ka
from keras_adjoint.ops.precision import epsilon

# Keras multiplies in float32 on most backends, whatever it is given. What cancels leaves the rounding of larger numbers behind.
TOLERANCE = 2**12 * epsilon("float32")


def on_rows(model):
    """A model as a function of a matrix to a matrix, each of whose rows holds a sample's inputs or outputs side by side."""
    sizes = [int(np.prod(x.shape[1:])) for x in model.inputs]

    def function(rows):
        parts = ops.split(rows, np.cumsum(sizes)[:-1].tolist(), axis=1) if len(sizes) > 1 else [rows]
        tensors = [ops.reshape(part, (-1, *x.shape[1:])) for part, x in zip(parts, model.inputs, strict=True)]
        packed = tree.pack_sequence_as(model.input, tensors) if tree.is_nested(model.input) else tensors[0]
        outputs = tree.flatten(model(packed, training=False))
        return ops.concatenate([ops.reshape(y, (rows.shape[0], -1)) for y in outputs], axis=1)

    function.inputs = sum(sizes)
    return function


def assert_transposes(drawn, adjoint):
    """`adjoint` is the transposed matrix of a model, which is linear up to a constant, and what autodiff gives."""
    forward, backward = on_rows(drawn.model), on_rows(adjoint)
    n, m = forward.inputs, backward.inputs
    x, y = (np.random.default_rng(1).normal(size=(1, size)).astype("float32") for size in (n, m))

    def all_at_once(xs, ys):
        def product(x):
            return ops.sum(forward(x) * ys[m:]) + 0.0 * ops.sum(x)  # of which no output may depend

        (gradient,) = autodiff.gradients_of(product, traced=True)([xs[n : n + 1]])
        return forward(xs), backward(ys), gradient

    rows = [np.concatenate(parts) for parts in ((np.eye(n), x, np.zeros((1, n))), (np.eye(m), y))]
    found = compiled(all_at_once)(*(ops.convert_to_tensor(each, "float32") for each in rows))
    columns, matrix, gradient = map(ops.convert_to_numpy, found)
    transposed = columns[:n] - columns[-1]
    tolerance = TOLERANCE * max(1.0, np.abs(transposed).max(initial=0.0))
    np.testing.assert_allclose(matrix[:m].T, transposed, rtol=0, atol=tolerance)
    np.testing.assert_allclose(columns[n] - columns[-1], (x @ transposed)[0], rtol=0, atol=n * tolerance)
    np.testing.assert_allclose(gradient, y @ transposed.T, rtol=0, atol=m * tolerance)


def assert_loaded_transposes(drawn):
    """So does the adjoint that was saved and loaded, and its own adjoint is the graph."""
    adjoint = ka.adjoint(drawn.model)
    with tempfile.TemporaryDirectory() as folder:
        adjoint.save(Path(folder) / "adjoint.keras")
        loaded = keras.saving.load_model(Path(folder) / "adjoint.keras", safe_mode=False)
    assert_transposes(drawn, loaded)
    drawn.model = ka.adjoint(loaded)
    assert_transposes(drawn, adjoint)


@given(graphs())
def test_the_adjoint_of_a_random_graph_has_the_transposed_matrix(drawn):
    assert_transposes(drawn, ka.adjoint(drawn.model))


@pytest.mark.in_turn("torch")
@settings(max_examples=30)
@given(graphs())
def test_the_adjoint_of_a_loaded_adjoint_of_a_random_graph_is_the_graph(drawn):
    assert_loaded_transposes(drawn)
