"""Copies in memory have all that a file would hold: also what layers derive from their variables, and what is in none."""

import keras
import numpy as np
import pytest
from encoders import values

import keras_adjoint as ka

L = keras.layers
X = np.random.default_rng(0).normal(2.0, 3.0, size=(5, 4, 3)).astype("float32")


class Doubled(L.Layer):
    """Scales by twice its weights, which it reads when they are loaded."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), name="scale", initializer="random_normal")
        self.derive()

    def derive(self):
        self.doubled = 2 * values(self.scale)

    def load_own_variables(self, store):
        super().load_own_variables(store)
        self.derive()

    def call(self, x):
        return keras.ops.multiply(x, self.doubled)

    def compute_output_shape(self, input_shape):
        return input_shape


class Listed(L.Layer):
    """Scales by numbers that are neither in its variables nor in its config."""

    numbers = 1.0

    def save_assets(self, folder):
        np.save(f"{folder}/numbers.npy", self.numbers)

    def load_assets(self, folder):
        self.numbers = np.load(f"{folder}/numbers.npy")

    def call(self, x):
        return keras.ops.multiply(x, self.numbers)

    def compute_output_shape(self, input_shape):
        return input_shape


def normalization():
    layer = L.Normalization()
    layer.adapt(X.reshape(-1, 3))
    return layer


def doubled():
    layer = Doubled()
    layer.build((None, 3))
    layer.scale.assign([1.0, -2.0, 0.5])
    layer.derive()
    return layer


def listed():
    layer = Listed()
    layer.numbers = np.array([3.0, 0.25, -1.0], "float32")
    return layer


LAYERS = {"normalization": normalization, "derived": doubled, "in no variable": listed}
PLACES = {
    "alone": lambda layer: layer,
    "at every step": L.TimeDistributed,
    "in a model": lambda layer: keras.Sequential([keras.Input((4, 3)), layer]),
}


@pytest.fixture(params=[(make, place) for make in LAYERS for place in PLACES], ids=" ".join)
def model(request):
    make, place = request.param
    x = keras.Input((4, 3))
    return keras.Model(x, L.Dense(2)(PLACES[place](LAYERS[make]())(x)))


def assert_same(found, expected):
    np.testing.assert_allclose(values(found), values(expected), rtol=1e-5, atol=1e-5)


def test_clones(model):
    tied = keras.Model(model.inputs[0], ka.adjoint(model)(model.outputs[0]))
    clone = ka.clone_tied(tied)
    assert ka.is_tied(clone)
    assert_same(clone(X), tied(X))


def test_adjoints_with_kernels_of_their_own(model):
    y = values(model(X))
    assert_same(ka.adjoint(model, tied=False)(y), ka.adjoint(model)(y))


def test_untied_models(model):
    assert_same(ka.untie(model)(X), model(X))
