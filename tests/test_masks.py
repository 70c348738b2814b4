"""Masks are ignored where they change nothing, and are part of the operator where they do."""

import keras
import numpy as np
import pytest
from encoders import assert_close, values
from keras import ops

import keras_adjoint as ka

L = keras.layers
WORDS = np.array([[1, 2, 0, 0, 3], [4, 0, 0, 0, 0]])


def embedded(*layers):
    words = keras.Input((5,), dtype="int32")
    y = L.Embedding(7, 3, mask_zero=True)(words)
    for layer in layers:
        y = layer(y)
    return keras.Model(words, y, name="net")


@pytest.mark.parametrize(
    "layers", [(L.BatchNormalization,), (L.Softmax,), (L.Dropout, 0.5), (L.Dense, 4), (L.Conv1D, 4, 3)]
)
def test_masks_that_change_nothing_are_ignored(layers):
    kind, *options = layers
    assert ka.mirror(embedded(kind(*options))).output_shape == (None, 5, 7)
    assert ka.autoencoder(embedded(kind(*options))).output_shape == (None, 5, 7)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_what_undoes_a_masked_mean_goes_to_the_positions_kept(data_format, tmp_path):
    layers = [L.Permute((2, 1))] if data_format == "channels_first" else []
    layers.append(L.GlobalAveragePooling1D(data_format=data_format))
    words = keras.Input((5,), dtype="int32")
    embedding = L.Embedding(7, 3)
    y, mask = embedding(words), ops.not_equal(words, 0)
    for layer in layers[:-1]:
        y = layer(y)
    model = keras.Model(words, layers[-1](y, mask=mask), name="net")
    vectors, kept = values(embedding.embeddings), WORDS != 0
    for pooling, shares in {"average": kept / kept.sum(axis=1, keepdims=True), "spread": kept}.items():
        autoencoder = ka.autoencoder(model, pooling=pooling, bias="none")
        expected = shares[:, :, None] * (values(model(WORDS)) @ vectors.T)[:, None]
        autoencoder.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert_close(values(autoencoder(WORDS)), expected)
        assert_close(values(loaded(WORDS)), expected)


def test_a_masked_mean_without_its_mask_is_refused_with_its_place():
    model = embedded(L.GlobalAveragePooling1D(name="mean"))
    refused = r"`net/mean` is a mean over the positions that a mask keeps"
    with pytest.raises(ka.NoRuleError, match=refused):
        ka.adjoint(model)
    with pytest.raises(ka.NoRuleError, match=refused):
        ka.mirror(model, pooling="average")
    assert ka.mirror(model, pooling="spread").output_shape == (None, 5, 7)


@pytest.mark.parametrize("pooling", ["average", "spread"])
def test_an_autoencoder_of_a_masked_mean_can_be_mirrored_again(pooling):
    model = embedded(L.GlobalAveragePooling1D())
    autoencoder = ka.autoencoder(model, pooling=pooling, bias="none")
    assert ka.autoencoder(autoencoder, pooling=pooling).output_shape == (None, 5, 7)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_means_by_masks_at_every_step_are_undone_by_them(data_format, tmp_path):
    x, steps = (
        keras.Input((2, 4, 3) if data_format == "channels_last" else (2, 3, 4)),
        keras.Input((2, 4), dtype="bool"),
    )
    pool = keras.layers.GlobalAveragePooling1D(data_format)
    encoder = keras.Model([x, steps], keras.layers.TimeDistributed(pool)(x, mask=steps))
    kept = np.array([[[True, True, False, False], [True, False, True, True]]])
    given = [np.random.default_rng(0).normal(size=(1, *x.shape[1:])).astype("float32"), kept]
    code = np.array(keras.ops.convert_to_numpy(encoder(given)))
    axis = -1 if data_format == "channels_last" else -2
    for pooling, share in {"average": kept / kept.sum(-1, keepdims=True), "spread": kept}.items():
        autoencoder = ka.autoencoder(encoder, pooling=pooling)
        autoencoder.save(tmp_path / "autoencoder.keras")
        expected = np.expand_dims(code, 2 if axis == -1 else 3) * np.expand_dims(share, axis)
        for model in (autoencoder, keras.saving.load_model(tmp_path / "autoencoder.keras")):
            found = keras.ops.convert_to_numpy(model(given)[0])
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ka.NoRuleError, match="a mean over the positions that a mask keeps"):
        ka.mirror(encoder, pooling="average")
