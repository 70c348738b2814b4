"""What the tests of `untie` share: how two models are compared, and what a model is made of."""

import keras
import numpy as np
import pytest
from helpers import compiled
from keras import ops
from layer_list import LAYERS, randomize

import keras_adjoint as ka
from keras_adjoint.ops.precision import epsilon

L = keras.layers
KINDS = ("conv_transpose", "conv")
LINEAR = [case for case in LAYERS if not case.title.startswith(("max", "time")) and not case.merges]

both_kinds = pytest.mark.parametrize("to", KINDS)


def numbers(tensor):
    return ops.convert_to_numpy(tensor)


def values(functions, inputs):
    """What several models make of the same inputs."""

    def run(inputs):
        return [function(inputs) for function in functions]

    return [numbers(ops.cast(output, "float64")) for output in compiled(run)(inputs)]


def random_input(shape, dtype="float32"):
    return ops.convert_to_tensor(np.random.default_rng(1).normal(size=(2, *shape)), dtype=dtype)


def assert_same(pairs, inputs, dtype="float32"):
    """The two of each pair give the same to rounding, that is, to a few dozen roundings of their largest number."""
    results = values([function for pair in pairs for function in pair], inputs)
    for expected, result in zip(results[::2], results[1::2], strict=True):
        assert result.shape == expected.shape
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(result, expected, rtol=0, atol=64 * epsilon(dtype) * np.abs(expected).max())


def layers(model):
    """All layers of a model, those of nested models included."""
    return [layer for layer in model._flatten_layers(include_self=False) if not isinstance(layer, keras.Model)]


def classes(model):
    return [type(layer).__name__ for layer in layers(model) if not isinstance(layer, L.InputLayer)]


def assert_stock(model):
    assert {type(layer).__module__.partition(".")[0] for layer in model._flatten_layers()} == {"keras"}
    assert "keras_adjoint" not in model.to_json()


def called(source, shape, dtype="float32", **options):
    """The adjoint of a layer, called on a symbolic tensor, with random numbers in all weights."""
    features = source(keras.Input(shape, dtype=dtype))
    tied = ka.adjoint(source, **options)
    tied(keras.Input(features.shape[1:], dtype=dtype))
    return randomized(tied)


def randomized(model):
    randomize(model)
    return model


def built(layer, shape):
    layer.build((None, *shape))
    return layer


def features_shape(tied):
    return tied.input.shape[1:]
