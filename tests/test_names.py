"""New layers do not take the names of a model's own, also where the model comes from a file and Keras counts from zero."""

import keras
import numpy as np
import pytest
from helpers import in_turn

import keras_adjoint as ka

L = keras.layers


def with_sums(tmp_path):
    """A model from a file, whose sums have names that Keras would give next."""
    x = keras.Input((6, 5, 2))
    y = L.ReLU()(L.Conv2D(3, 3, padding="same")(x))
    y = L.Add(name="add_1")([L.Conv2D(3, 1)(y), y])
    y = L.Add(name="add_2")([L.Conv2D(3, 1)(y), y])
    keras.Model(x, y).save(tmp_path / "model.keras")
    keras.utils.clear_session()
    return keras.models.load_model(tmp_path / "model.keras")


def names(model):
    return [layer.name for layer in model.layers]


@pytest.mark.any_backend
def test_adjoints_are_named_after_their_source_when_keras_counts_anew():
    x = keras.Input((6,))
    y = L.Dense(6, name="dense")(x)
    model = keras.Model(x, L.Add(name="add")([L.Dense(6, name="dense_1")(y), y]))
    first = ka.adjoint(model)
    keras.backend.clear_session()
    assert ka.adjoint(model.get_layer("dense")).name == "dense_adjoint_1"  # `first` has the other one
    again = ka.adjoint(model)
    assert names(again) == names(first) and len(set(names(again))) == len(again.layers)
    assert {"dense_adjoint", "dense_1_adjoint", "add_adjoint"} <= set(names(again))


@pytest.mark.parametrize(
    "back",
    in_turn(
        [
            lambda model: ka.autoencoder(model),
            lambda model: ka.autoencoder(model, activation="gradient", output_activation="relu"),
            lambda model: ka.deconvnet(model, "add_2", strongest=2),
            lambda model: keras.Model(model.inputs, ka.mirror(model)(model.outputs)),
        ],
        name=lambda back: None,
        always=["torch"],
    ),
)
def test_sums_of_the_backward_pass_have_names_of_their_own(tmp_path, back):
    model = with_sums(tmp_path)
    x = np.ones((1, 6, 5, 2), "float32")
    assert back(model)(x).shape[-3:] == (6, 5, 2)


def test_models_without_names_are_numbered_as_keras_numbers_layers():
    inputs = keras.Input((4,))
    encoder = keras.Model(inputs, keras.layers.Dense(3)(inputs), name="encoder")
    for make in (ka.autoencoder, ka.mirror, ka.adjoint):
        first, second, named = make(encoder), make(encoder), make(encoder, name="decoder")
        assert (second.name, named.name) == (f"{first.name}_1", "decoder")
        x = keras.Input(first.input_shape[1:])
        assert keras.Model(x, [first(x), second(x)]).output_names == [first.name, second.name]
