"""`adjoint(model)` of graphs that are wired at random, against the dense matrix and autodiff, and after saving and loading."""

import tempfile
from pathlib import Path

import autodiff
import numpy as np
import pytest
from helpers import compiled
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops, tree
from operators_of_models import right_or_refused, saved_and_loaded
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


def assert_transposes(model, adjoint):
    """`adjoint` is the transposed matrix of a model, which is linear up to a constant, and what autodiff gives."""
    forward, backward = on_rows(model), on_rows(adjoint)
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


def adjoint_or_none(drawn, **options):
    """The adjoint; `None` where the library rightly says that masks make the model other than linear."""
    if not drawn.depends_on_mask:
        return ka.adjoint(drawn.model, **options)
    with right_or_refused(drawn.model.name):
        return ka.adjoint(drawn.model, **options)


def assert_adjoint_transposes(drawn, tied=True):
    adjoint = adjoint_or_none(drawn, tied=tied)
    if adjoint is not None:
        assert_transposes(drawn.model, adjoint)
        shared = {id(weight) for weight in adjoint.weights} & {id(weight) for weight in drawn.model.weights}
        assert tied or not shared
        assert not tied or len(shared) == len(adjoint.weights)


def assert_loaded_transposes(drawn):
    """So does the adjoint that was saved and loaded, and its own adjoint is the graph."""
    adjoint = adjoint_or_none(drawn)
    if adjoint is not None:
        with tempfile.TemporaryDirectory() as folder:
            loaded = saved_and_loaded(adjoint, Path(folder) / "adjoint.keras")
        assert_transposes(drawn.model, loaded)
        assert_transposes(ka.adjoint(loaded), adjoint)


@given(graphs(), st.booleans())
def test_the_adjoint_of_a_random_graph_has_the_transposed_matrix(drawn, tied):
    assert_adjoint_transposes(drawn, tied)


@pytest.mark.in_turn("torch")
@settings(max_examples=30)
@given(graphs())
def test_the_adjoint_of_a_loaded_adjoint_of_a_random_graph_is_the_graph(drawn):
    assert_loaded_transposes(drawn)
