"""Copies of models that make new layers, and keep adjoints as they are, are warned of."""

import warnings

import keras
import numpy as np
import pytest

import keras_adjoint as ka
from keras_adjoint.keras_internals import operations_behind
from keras_adjoint.layers.tied import Tied

L = keras.layers
SOURCES = {
    "dense": lambda: L.Dense(3, name="source"),
    "conv": lambda: L.Conv2D(3, 2, name="source"),
    "depthwise": lambda: L.DepthwiseConv2D(2, name="source"),
    "normalisation": lambda: L.BatchNormalization(name="source"),
}
pytestmark = pytest.mark.any_backend


def autoencoder(source):
    x = keras.Input((5, 4, 2))
    y = source(x)
    return keras.Model(x, ka.adjoint(source, name="back")(L.Activation("tanh", name="bend")(y)))


def sequential(source):
    source.build((None, 5, 4, 2))
    return keras.Sequential([keras.Input((5, 4, 2)), source, ka.adjoint(source, name="back")])


def in_a_nested_model(source):
    x = keras.Input((5, 4, 2))
    encoder = keras.Sequential([keras.Input((5, 4, 2)), source], name="encoder")
    return keras.Model(x, ka.adjoint(source, name="back")(encoder(x)))


def renewed(layer):
    """A new layer for each that is no adjoint."""
    return layer if isinstance(layer, Tied) else type(layer).from_config(layer.get_config())


@pytest.mark.parametrize("make", [autoencoder, sequential, in_a_nested_model])
@pytest.mark.parametrize("name", SOURCES)
def test_an_adjoint_behind_a_copy_of_its_source_is_warned_of_and_the_advice_works(name, make):
    model = make(SOURCES[name]())
    with pytest.warns(UserWarning, match=r"`back` .* `source`, .*clone_tied"):
        clone = keras.models.clone_model(model, clone_function=renewed)
    assert not ka.is_tied(clone)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert ka.is_tied(ka.clone_tied(model))


def test_a_source_without_variables_may_be_copied():
    model = in_a_nested_model(L.AveragePooling2D(2, name="source"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        keras.models.clone_model(model, clone_function=renewed)


@pytest.mark.parametrize("make", [autoencoder, sequential, in_a_nested_model])
def test_other_second_calls_are_not_warned_of(make, tmp_path):
    model = make(SOURCES["conv"]())
    back = model.get_layer("back")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        keras.models.clone_model(model, clone_function=lambda layer: layer)
        back(keras.Input(back.input.shape[1:]))  # a decoder
        back(L.Conv2D(3, 2)(keras.Input((5, 4, 2))))  # behind another layer
        back(L.Dense(3, name="source")(keras.Input((4, 3, 7))))  # of another class
        model(keras.Input((5, 4, 2)))
        model(np.ones((1, 5, 4, 2), "float32"))
        model.save(tmp_path / "model.keras")
        keras.saving.load_model(tmp_path / "model.keras")


def test_operations_behind_a_tensor():
    x = keras.Input((3,))
    dense, add = L.Dense(3), L.Add()
    y = add([dense(dense(x)), x])
    found = list(operations_behind(y))
    assert found[0] is add and found.count(dense) == 2 and len(found) == 4
    assert not list(operations_behind(keras.KerasTensor((None, 3))))
