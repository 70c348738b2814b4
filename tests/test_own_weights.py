"""The weights that an adjoint has besides its source's: public attributes, which every way of keeping a model finds."""

import keras
import numpy as np
import pytest
from encoders import values

import keras_adjoint as ka

L = keras.layers
X = np.random.default_rng(0).normal(size=(2, 9, 9, 2)).astype("float32")


def sources():
    return {
        "conv": L.Conv2D(4, 3, strides=2),
        "depthwise": L.DepthwiseConv2D(3),
        "dense": L.Dense(4),
        "transposed": L.Conv2DTranspose(4, 3),
    }


def built(name):
    layer = sources()[name]
    layer.build(X.shape)
    return layer


@pytest.mark.parametrize("name", sources())
@pytest.mark.parametrize("mode", ["none", "subtract", "own", "average", "learned"])
def test_an_adjoint_has_its_weights_from_the_start_under_their_names(name, mode):
    channels = 3 if mode == "own" else None
    layer = ka.adjoint(built(name), bias=mode, channels=channels)
    expected = {
        "bias": (channels or 2,) if mode in ("own", "average") else None,
        "bias_map": (4 if name != "depthwise" else 2, 2) if mode == "learned" else None,
        "channel_map": (2, channels) if channels else None,
    }
    found = {part: getattr(layer, part) for part in expected}
    assert {part: None if weight is None else tuple(weight.shape) for part, weight in found.items()} == expected
    own = [weight for weight in layer.weights if all(weight is not other for other in layer.source.weights)]
    assert {id(weight) for weight in own} == {id(weight) for weight in found.values() if weight is not None}


def autoencoder():
    """A model whose adjoints have every kind of weight, none of them at its initial value."""
    x = keras.Input(X.shape[1:])
    conv, dense = L.Conv2D(4, 3, strides=2), L.Dense(5)
    code = dense(conv(x))
    y = ka.adjoint(conv, bias="own", channels=3)(ka.adjoint(dense, bias="learned")(code))
    model = keras.Model(x, y)
    generator = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(generator.normal(size=weight.shape))
    return model


@pytest.mark.only_on("tensorflow")
def test_a_checkpoint_of_tensorflow_holds_every_weight_once(tmp_path):
    import tensorflow as tf

    model, other = autoencoder(), autoencoder()
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    stored = [name for name, _ in tf.train.list_variables(path) if name.endswith("VARIABLE_VALUE")]
    assert len(stored) == len(model.weights) + 1  # and the counter of saves
    for weight in other.weights:
        weight.assign(weight * 0)
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(values(other(X)), values(model(X)))


@pytest.mark.only_on("tensorflow")
def test_a_saved_model_of_tensorflow_computes_the_same(tmp_path):
    import tensorflow as tf

    model = autoencoder()
    tf.saved_model.save(model, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    (found,) = loaded(tf.constant(X)).values()
    np.testing.assert_allclose(values(found), values(model(X)), rtol=1e-5, atol=1e-5)


@pytest.mark.only_on("torch")
def test_a_state_dict_of_pytorch_holds_every_weight_once():
    import torch

    model = autoencoder()
    keras.utils.clear_session(free_memory=False)  # PyTorch finds weights by their names
    other = autoencoder()
    stored = model.state_dict()
    assert len({tensor.data_ptr() for tensor in stored.values()}) == len(model.weights)
    for weight in other.weights:
        weight.assign(weight * 0)
    with torch.no_grad():
        other.load_state_dict(stored)
    np.testing.assert_array_equal(values(other(X)), values(model(X)))


def test_two_adjoints_of_a_layer_have_two_names_after_loading_too(tmp_path):
    x = keras.Input(X.shape[1:])
    conv = L.Conv2D(4, 3, strides=2, name="conv")
    code = conv(x)
    keras.Model(x, ka.adjoint(conv)(code)).save(tmp_path / "m.keras")
    keras.utils.clear_session(free_memory=False)  # as in another process
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    second = ka.adjoint(loaded.get_layer("conv"))
    assert [loaded.layers[-1].name, second.name] == ["conv_adjoint", "conv_adjoint_1"]
    both = keras.Model(loaded.input, [loaded.output, second(loaded.get_layer("conv").output)])
    first, other = both(X)
    np.testing.assert_array_equal(values(first), values(other))
