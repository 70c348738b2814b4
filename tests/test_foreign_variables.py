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


def raw_variable(numbers):
    """A variable of the backend's own, of which Keras knows nothing."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.nn.Parameter(torch.tensor(numbers))
    import tensorflow as tf

    return tf.Variable(numbers)


def as_lambda(variable):
    return L.Lambda(lambda x: keras.ops.roll(x * variable, 1, axis=-1))


def as_layer_with_a_weight(variable):
    class Scaled(L.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

        def call(self, x):
            return keras.ops.roll(x * self.scale * variable, 1, axis=-1)

    return Scaled()


@pytest.mark.only_on("torch", "tensorflow")
@pytest.mark.parametrize("make", [as_lambda, as_layer_with_a_weight])
def test_variables_of_the_backend_are_seen_as_those_of_others(make):
    layer = make(raw_variable(np.full(4, 2, "float32")))
    layer(keras.Input((4,)))
    y = np.ones((1, 4), "float32")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ka.adjoint(layer)(y)), 2 * y)
    with pytest.raises(ka.TieError, match=r"not its own, a `\w+` of shape \(4,\).*Received: tied=False"):
        ka.adjoint(layer, tied=False)
    with pytest.raises(ka.NoRuleError, match="one constant matrix"):
        ka.untie(ka.adjoint(layer))


@pytest.mark.only_on("tensorflow")
def test_variables_of_tensorflow_that_are_not_trained_are_seen_as_those_of_others():
    import tensorflow as tf

    layer = as_lambda(tf.Variable(np.full(4, 2, "float32"), trainable=False))
    layer(keras.Input((4,)))
    with pytest.raises(ka.TieError, match=r"not its own, a `\w+` of shape \(4,\).*Received: tied=False"):
        ka.adjoint(layer, tied=False)
    with pytest.raises(ka.NoRuleError, match="one constant matrix"):
        ka.untie(ka.adjoint(layer))


def test_untying_makes_no_constants_of_variables_of_others():
    layer, x, y = dense(), keras.Input((4,)), keras.Input((3,))
    around_it = L.Lambda(lambda x: keras.ops.roll(layer(x), 1, axis=-1))
    around_it(x)
    with pytest.raises(ka.NoRuleError, match=r"does not hold, .*kernel.*one constant matrix"):
        ka.untie(keras.Model(y, ka.adjoint(around_it)(y)))
    constant = L.Lambda(lambda x: keras.ops.roll(x, 1, axis=-1))
    constant(x)
    assert not ka.untie(ka.adjoint(constant)).trainable_weights
