"""`unroll`: where the steps begin, and what is trained beside a frozen layer."""

import keras
import numpy as np
import pytest
from helpers import in_turn
from keras import layers, ops

import keras_adjoint as ka


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def dictionary(trainable=True):
    """A dense layer, its matrix, and some of what it gives."""
    dense = layers.Dense(8, use_bias=False, trainable=trainable)
    dense.build((None, 20))
    return dense, numpy(dense.kernel).T, np.random.default_rng(0).random((4, 8), "float32")


@pytest.mark.in_turn("torch")
def test_steps_go_on_from_where_the_start_is_and_are_saved_with_it(tmp_path):
    layer, matrix, y = dictionary()
    begin = ka.LeastSquares(layer, ridge=0.1)
    network = ka.unroll(layer, 1, weight=0.2, learn=(), start=begin)
    x, length = numpy(begin(y)), 1 / numpy(ka.operator(layer).bound()) ** 2
    moved = x - length * (x @ matrix.T - y) @ matrix
    expected = np.sign(moved) * np.maximum(np.abs(moved) - 0.2 * length, 0)
    np.testing.assert_allclose(numpy(network(y)), expected, atol=1e-5)
    assert np.abs(expected - numpy(ka.unroll(layer, 1, weight=0.2, learn=())(y))).max() > 0.01
    network.save(tmp_path / "network.keras")
    for copy in (keras.saving.load_model(tmp_path / "network.keras"), ka.clone_tied(network)):
        np.testing.assert_allclose(numpy(copy(y)), expected, atol=1e-5)


def test_start_that_gives_no_x_is_refused():
    layer, _, _ = dictionary()
    with pytest.raises(ValueError, match=r"which A takes: \(20,\).*gives \(7,\)"):
        ka.unroll(layer, 2, weight=0.1, start=layers.Dense(7))
    with pytest.raises(ValueError, match="`start` is a layer or model.*Received: start=0"):
        ka.unroll(layer, 2, weight=0.1, start=0)


@pytest.mark.parametrize(("tied", "trained"), in_turn([(True, 0), ("forward", 2), (False, 4)], always=["torch"]))
def test_copies_of_a_frozen_layer_are_trained_and_the_layer_is_not(tied, trained):
    layer, matrix, y = dictionary(trainable=False)
    network = ka.unroll(layer, 2, method="fista", weight=0.1, learn=("step",), tied=tied)
    assert sum(len(weight.shape) == 2 for weight in network.trainable_variables) == trained
    network.compile(keras.optimizers.SGD(0.1), "mse")
    before = [numpy(weight) for weight in network.trainable_variables]
    network.fit(y, np.ones((4, 20), "float32"), verbose=0)
    np.testing.assert_array_equal(numpy(layer.kernel).T, matrix)
    changed = [
        not np.array_equal(old, numpy(new)) for old, new in zip(before, network.trainable_variables, strict=True)
    ]
    # Without momentum in the first two steps x is zero in the first one, where A has no gradient.
    assert sum(changed) >= len(changed) - (tied is False)
