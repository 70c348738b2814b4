"""Classes that were never registered with Keras: copies within the program find them, and for the rest an error names them."""

import copy
import warnings

import keras
import numpy as np
import pytest
from encoders import values

import keras_adjoint as ka

L = keras.layers
MESSAGE = (
    r"finds no class `{}`. Decorate it with `@keras.saving.register_keras_serializable\(\)`.*Received: class_name='{}'"
)


class Weighted(L.Layer):
    """Linear, without a rule."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, shape):
        self.w = self.add_weight(shape=(self.size,), initializer="normal")

    def call(self, x):
        return x * self.w


class Bent(L.Dense):
    """Inherits a rule."""


MAKE = {"Weighted": lambda: Weighted(6), "Bent": lambda: Bent(6)}
X = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")


def around(name):
    """(a layer, a model of it and of its adjoint)."""
    layer = MAKE[name]()
    x = keras.Input((6,))
    y = layer(x)
    return layer, keras.Model(x, ka.adjoint(layer, name="back")(y))


@pytest.mark.parametrize("name", MAKE)
def test_a_copied_adjoint_of_a_class_that_was_never_registered(name):
    layer, _ = around(name)
    owner = ka.adjoint(layer, tied=False)
    np.testing.assert_allclose(values(owner(X)), values(ka.adjoint(layer)(X)), rtol=1e-6)
    assert not {id(weight) for weight in owner.weights} & {id(weight) for weight in layer.weights}


@pytest.mark.parametrize("name", MAKE)
def test_clone_tied_finds_the_class(name):
    layer, model = around(name)
    clone = ka.clone_tied(model)
    assert ka.is_tied(clone) and not ka.is_tied(clone, model)
    assert type(clone.layers[1]) is type(layer)
    np.testing.assert_allclose(values(clone(X)), values(model(X)), rtol=1e-6)


@pytest.mark.parametrize("name", MAKE)
def test_what_keras_copies_or_loads_by_names_says_which_class_is_not_registered(name, tmp_path):
    _, model = around(name)
    model.save(tmp_path / "m.keras")
    ways = [keras.models.clone_model, copy.deepcopy, lambda model: keras.saving.load_model(tmp_path / "m.keras")]
    for make in ways:
        refused = pytest.raises((ka.TieError, TypeError), match="register_keras_serializable")
        with refused as found, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make(model)
        assert name in str(found.value)
    decoder = keras.Sequential([keras.Input((6,)), model.get_layer("back")])
    with pytest.raises(ka.TieError, match=MESSAGE.format(name, name)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.models.clone_model(decoder)
    decoder.save(tmp_path / "d.keras")
    with pytest.raises(ka.TieError, match=MESSAGE.format(name, name)):
        keras.saving.load_model(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras", custom_objects={name: type(model.layers[1])})
    np.testing.assert_allclose(values(loaded(X)), values(decoder(X)), rtol=1e-6)


def test_two_classes_of_one_name_are_not_taken_for_each_other():
    first, second = (type("Weighted", (Weighted,), {}) for _ in range(2))
    x = keras.Input((6,))
    a, b = first(6), second(6)
    y = b(a(x))
    model = keras.Model(x, ka.adjoint(b)(y))
    with pytest.raises((ka.TieError, TypeError), match="register_keras_serializable"):
        ka.clone_tied(model)


def test_a_copy_of_an_adjoint_in_a_wrapper_owns_its_kernel_and_warns_of_nothing():
    source = L.TimeDistributed(L.Dense(4, activation="relu"))
    source.build((None, 3, 6))
    wrapped = L.TimeDistributed(ka.adjoint(source.layer, linear_part=True))
    wrapped.built = True
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*was tied")
        owner = ka.adjoint(wrapped, tied=False)
    assert not {id(weight) for weight in owner.weights} & {id(weight) for weight in source.weights}
    y = np.random.default_rng(1).normal(size=(2, 3, 6)).astype("float32")
    np.testing.assert_allclose(values(owner(y)), y @ values(source.layer.kernel), rtol=1e-5, atol=1e-6)
