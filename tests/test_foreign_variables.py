"""Code that reads variables of others: a tied adjoint follows them, and one that is asked to own a copy is refused."""

import keras
import numpy as np
import pytest

import keras_adjoint as ka

L = keras.layers


def dense():
    layer = L.Dense(3, use_bias=False)
    layer.build((None, 4))
    return layer


def around(layer):
    """Layers and operations that compute with the kernel of another layer."""
    return {
        "a lambda": L.Lambda(lambda x: layer(x)),
        "an operation": lambda x: x @ layer.kernel,
        "a product": lambda x: keras.ops.sum(x[..., None] * layer.kernel, axis=1),
    }


@pytest.mark.parametrize("name", ["a lambda", "an operation", "a product"])
def test_tied_to_variables_of_others_it_follows_them_and_owning_a_copy_is_refused(name):
    layer, x = dense(), keras.Input((4,))
    model = keras.Model(x, around(layer)[name](x))
    backward = ka.adjoint(model)
    layer.kernel.assign(2 * np.ones((4, 3)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(backward(np.ones((1, 3)))), np.full((1, 4), 6.0))
    nonlinear = keras.Model(x, keras.ops.tanh(around(layer)[name](x)))
    policies = {"activation": "gradient", "bias": "none"}
    for untied in (
        lambda: ka.adjoint(model, tied=False),
        lambda: ka.mirror(model, tied=False),
        lambda: ka.autoencoder(nonlinear, tied=False, **policies),
    ):
        with pytest.raises(ka.TieError, match=r"not its own, .*kernel.*Received: tied=False"):
            untied()


class Holding(L.Layer):
    def __init__(self, inside, **kwargs):
        super().__init__(**kwargs)
        self.inside = inside

    def call(self, x):
        return self.inside(x) - keras.ops.roll(self.inside(x), 1, axis=-1)

    def get_config(self):
        return {**super().get_config(), "inside": keras.saving.serialize_keras_object(self.inside)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "inside": keras.saving.deserialize_keras_object(config["inside"])})


def test_of_a_layer_that_holds_the_owner_a_copy_owns_everything():
    holding = Holding(dense())
    holding(keras.Input((4,)))
    backward, y = ka.adjoint(holding, tied=False), np.ones((1, 3)) * [1, 2, 3]
    before = keras.ops.convert_to_numpy(backward(y))
    holding.inside.kernel.assign(np.ones((4, 3)))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(backward(y)), before)
