"""Encoders as deep as Keras can build have mirrors, adjoints and autoencoders, which can be saved and loaded."""

import keras
import numpy as np
import pytest
from encoders import values
from helpers import in_turn

import keras_adjoint as ka

L = keras.layers
CALLS = 500  # Keras itself stops at 980, and an autoencoder is twice as deep
ROUNDING = 4 * CALLS * float(np.finfo("float32").eps)


@pytest.mark.any_backend
def test_a_deep_encoder_has_an_autoencoder_that_is_saved_and_loaded(tmp_path):
    x = y = keras.Input((2,))
    dense = L.Dense(2, use_bias=False)
    dense.build((None, 2))
    dense.set_weights([np.array([[0.0, 1.0], [-1.0, 0.0]])])  # orthogonal to the last digit
    for _ in range(CALLS):
        y = dense(y)
    encoder = keras.Model(x, y)
    autoencoder = ka.autoencoder(encoder, bias="none")
    numbers = np.array([[1.0, 2.0]], "float32")
    np.testing.assert_allclose(values(autoencoder(numbers)), numbers, rtol=ROUNDING)
    autoencoder.save(tmp_path / "deep.keras")
    loaded = keras.saving.load_model(tmp_path / "deep.keras")
    np.testing.assert_allclose(values(loaded(numbers)), numbers, rtol=ROUNDING)
    assert ka.is_tied(loaded)
    for copy in (ka.clone_tied(autoencoder), ka.untie(autoencoder)):
        np.testing.assert_allclose(values(copy(numbers)), numbers, rtol=ROUNDING)


def deep_encoder(count):
    """As many layers, each of its own."""
    x = y = keras.Input((2,))
    for _ in range(count):
        y = L.Dense(2, use_bias=False, kernel_initializer="orthogonal")(y)
    return keras.Model(x, y)


def check_deep(count, tmp_path):
    encoder = deep_encoder(count)
    numbers = np.array([[1.0, 2.0]], "float32")
    rounding = 8 * count * float(np.finfo("float32").eps)
    code = encoder(numbers)
    decoder = ka.mirror(encoder, bias="none")
    autoencoder = ka.autoencoder(encoder, bias="none")
    adjoint = ka.adjoint(encoder)
    for found in (decoder(code), autoencoder(numbers), adjoint(code)):
        np.testing.assert_allclose(values(found), numbers, rtol=rounding)
    for model, given in ((decoder, code), (autoencoder, numbers)):
        model.save(tmp_path / "deep.keras")
        loaded = keras.saving.load_model(tmp_path / "deep.keras")
        np.testing.assert_allclose(values(loaded(given)), numbers, rtol=rounding)
    assert ka.is_tied(loaded) and len(loaded.weights) == count
    for copy in (ka.clone_tied(autoencoder), ka.untie(autoencoder)):
        np.testing.assert_allclose(values(copy(numbers)), numbers, rtol=rounding)


@pytest.mark.parametrize("count", in_turn([120], backends=lambda _: ["torch"]))
def test_an_encoder_of_many_layers(count, tmp_path):
    check_deep(count, tmp_path)


@pytest.mark.exhaustive
def test_an_encoder_of_nine_hundred_layers(tmp_path):
    check_deep(900, tmp_path)
