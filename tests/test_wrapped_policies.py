"""Policies about the layer inside of `TimeDistributed` or `SpectralNormalization` hold as they do for the layer alone."""

import keras
import numpy as np
import pytest
from autodiff import gradients
from encoders import EXACT, assert_close, values
from helpers import in_turn
from keras import ops
from layer_list import randomize

import keras_adjoint as ka

L = keras.layers
STEPS = 3

INNER = {
    "dense with an activation": lambda: L.Dense(5, activation="relu"),
    "dense with another activation": lambda: L.Dense(5, activation="gelu"),
    "activation": lambda: L.ReLU(),
    "activation by name": lambda: L.Activation("tanh"),
    "layer normalisation": lambda: L.LayerNormalization(),
    "batch normalisation": lambda: L.BatchNormalization(),
    "max pooling": lambda: L.MaxPooling1D(2),
    "global max pooling": lambda: L.GlobalMaxPooling1D(keepdims=True),
    "global average pooling": lambda: L.GlobalAveragePooling1D(keepdims=True),
    "dropout": lambda: L.Dropout(0.5),
    "rescaling": lambda: L.Rescaling(0.5, offset=0.1),
}
POLICIES = [
    {},
    {"activation": "linear", "bias": "none", "norm": "inverse", "pooling": "average", "preprocessing": "adjoint"},
    {"activation": "relu", "bias": "none", "norm": "scale", "preprocessing": "skip"},
    {"norm": "skip", "bias": "subtract", "dropout": "keep", "activation": {"default": "linear", L.ReLU: "same"}},
]


def network(layer, shape):
    """A layer, between two that are linear along the channels."""
    x = keras.Input(shape)
    model = keras.Model(x, L.Dense(2, use_bias=False)(layer(L.Dense(4, use_bias=False)(x))), name="encoder")
    for each in model.layers:
        if each.weights:
            randomize(each)
    return model


def both(make):
    """The network of a layer, and that of the same layer at every step, with the same weights."""
    alone, distributed = network(make(), (8, 3)), network(L.TimeDistributed(make()), (STEPS, 8, 3))
    distributed.set_weights(alone.get_weights())
    return alone, distributed


@pytest.mark.parametrize("name", in_turn(INNER))
def test_at_every_step_as_once(name, tmp_path):
    for policies in POLICIES:
        alone, distributed = both(INNER[name])
        mirror, at_steps = ka.mirror(alone, **policies), ka.mirror(distributed, **policies)
        assert [w.shape for w in mirror.trainable_weights] == [w.shape for w in at_steps.trainable_weights]
        code = np.random.default_rng(0).normal(size=(2, STEPS, *mirror.input_shape[1:])).astype("float32")
        expected = np.stack([values(mirror(code[:, step])) for step in range(STEPS)], axis=1)
        assert_close(values(at_steps(code)), expected)
    at_steps.save(tmp_path / "m.keras")
    assert_close(values(keras.saving.load_model(tmp_path / "m.keras")(code)), expected)


@pytest.mark.parametrize("name", in_turn(INNER))
def test_the_gradient(name):
    model, x = both(INNER[name])[1], np.random.default_rng(0).normal(size=(2, STEPS, 8, 3)).astype("float32")
    (expected,) = gradients(lambda x: ops.sum(model(x, training=False) ** 2) / 2, [ops.convert_to_tensor(x)])
    assert_close(values(ka.autoencoder(model, **EXACT)(x, training=False)), expected)


def normalised(activation, **options):
    return network(L.SpectralNormalization(L.Conv1D(4, 3, padding="same", activation=activation, **options)), (8, 3))


@pytest.mark.parametrize("activation", ["relu", "gelu", "relu6", "softmax"])
def test_of_a_spectral_normalisation(activation):
    model, x = normalised(activation), np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")
    (expected,) = gradients(lambda x: ops.sum(model(x) ** 2) / 2, [ops.convert_to_tensor(x)])
    assert_close(values(ka.autoencoder(model, **EXACT)(x)), expected)
    mirror = ka.mirror(model)
    assert [layer.activation.__name__ for layer in mirror.layers if isinstance(layer, L.Activation)] == [activation]
    assert (
        len([w for w in mirror.trainable_weights if "bias" in w.path]) == 4
    )  # the encoder's, and one in every adjoint


def test_guided_reads_what_goes_into_the_activation_inside():
    for wrap in (L.SpectralNormalization, L.TimeDistributed):
        inner = L.Dense(4, activation="relu6")
        x = keras.Input((5, 3))
        model = keras.Model(x, wrap(inner)(x))
        randomize(inner)
        inner.kernel.assign(20 * inner.kernel)
        given = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
        code, before = values(model(given)), given @ values(inner.kernel) + values(inner.bias)
        expected = np.where((before > 0) & (before < 6), np.maximum(code, 0), 0) @ values(inner.kernel).T
        assert np.any(before > 6)
        assert_close(values(ka.autoencoder(model, **{**EXACT, "activation": "guided"})(given)), expected)


@pytest.mark.any_backend
@pytest.mark.parametrize("wrap", [L.SpectralNormalization, L.TimeDistributed])
def test_the_linear_part_as_the_error_says(wrap):
    layer = wrap(L.Dense(4, activation="relu"))
    layer(np.ones((2, 5, 3), "float32"))
    with pytest.raises(ka.NoRuleError, match="layer inside of .*Pass `linear_part=True`"):
        ka.adjoint(layer)
    y = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    assert_close(values(ka.adjoint(layer, linear_part=True)(y)), y @ values(layer.layer.kernel).T)
