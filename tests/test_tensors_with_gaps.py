"""Sparse, ragged, nested and masked tensors: the right value where the backend has it, else our own error."""

import importlib

import keras
import numpy as np
import pytest
import scipy.sparse
from keras import ops
from layer_list import HALF, LAYERS, for_each
from test_inputs import made

import keras_adjoint as ka
from keras_adjoint.layers.tied import Tied

L = keras.layers


def backend_forms():
    """Functions that make tensors of the backend with gaps, of an array, and one that gives the array of any tensor."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        tf = importlib.import_module("tensorflow")
        forms = [tf.sparse.from_dense, tf.RaggedTensor.from_tensor]
        kinds = {tf.SparseTensor: tf.sparse.to_dense, tf.RaggedTensor: lambda tensor: tensor.to_tensor()}
    elif backend == "torch":
        torch = importlib.import_module("torch")
        nested = torch.nested.nested_tensor
        forms = [
            lambda y: torch.tensor(y).to_sparse(),
            lambda y: nested([torch.tensor(each) for each in y], layout=torch.jagged),
            lambda y: nested([torch.tensor(each) for each in y]),
        ]

        def filled(tensor):
            parts = torch.stack(tensor.unbind()) if tensor.is_nested else tensor
            return parts.to_dense() if parts.is_sparse else parts

        kinds = {torch.Tensor: filled, type(nested([torch.zeros(1)], layout=torch.jagged)): filled}
    else:
        sparse = importlib.import_module("jax.experimental.sparse")
        forms = [sparse.BCOO.fromdense]
        kinds = {sparse.BCOO: lambda tensor: tensor.todense()}

    def dense(tensor):
        return ops.convert_to_numpy(kinds.get(type(tensor), lambda tensor: tensor)(tensor))

    return forms, dense


def masked(y):
    return np.ma.masked_array(y, y > 1)


@for_each(LAYERS, quick=HALF)
def test_every_adjoint_gives_the_value_of_the_dense_tensor_or_refuses(case):
    layer, values, arguments = made(case)
    if not isinstance(layer, Tied) or values.ndim < 2:
        return
    y = values.astype("float32")
    expected = keras.tree.map_structure(ops.convert_to_numpy, layer(y, **arguments))
    forms, dense = backend_forms()
    for form in forms:
        try:
            given = form(y)
        except (ValueError, NotImplementedError, RuntimeError):  # the backend has none of that kind
            continue
        try:
            found = layer(given, **arguments)
        except ValueError as error:
            assert "a number in every place" in str(error) or "Received: " in str(error), error
            continue
        keras.tree.map_structure(
            lambda one, two: np.testing.assert_allclose(dense(one), two, rtol=1e-5, atol=1e-5), found, expected
        )


@pytest.mark.parametrize("name", ["layer", "operator", "lstsq", "x0"])
def test_masks_sparse_matrices_and_objects_are_refused_everywhere(name):
    dense = L.Dense(3)
    dense(keras.Input((2,)))
    A, y = ka.operator(dense), np.arange(6, dtype="float32").reshape(2, 3)
    call = {
        "layer": ka.adjoint(dense),
        "operator": lambda y: A.T @ y,
        "lstsq": lambda y: ka.lstsq(A, y),
        "x0": lambda x0: ka.LeastSquares(dense)(y, x0=x0),
    }[name]
    given = y[:, :2] if name == "x0" else y
    forms, _ = backend_forms()
    without = [] if name == "layer" else forms  # a backend's own product takes sparse ones
    for form in (masked, scipy.sparse.csr_matrix, lambda y: y.astype(object), lambda y: y.astype(str), *without):
        with pytest.raises(ValueError, match="Received: "):
            call(form(given))
