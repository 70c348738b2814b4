"""Encoders as deep as Keras can build have mirrors, adjoints and autoencoders, which can be saved and loaded."""

import keras
import numpy as np
import pytest
from encoders import values

import keras_adjoint as ka

L = keras.layers
CALLS = 500  # Keras itself stops at 980, and an autoencoder is twice as deep
ROUNDING = 4 * CALLS * float(np.finfo("float32").eps)


@pytest.mark.any_backend
def test_a_deep_encoder_has_an_autoencoder_that_is_saved_and_loaded(tmp_path):
    x = y = keras.Input((2,))
    dense = L.Dense(2, use_bias=False, kernel_initializer="orthogonal")
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
