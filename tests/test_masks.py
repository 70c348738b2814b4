"""Masks are ignored where they change nothing, and are part of the operator where they do."""

from functools import partial

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


class KeepsByMask(L.Layer):
    """Sets what a mask leaves out to zero, of the last of its tensors."""

    def call(self, x, mask=None):
        *others, x = x if isinstance(x, list) else [x]
        *_, mask = mask if isinstance(mask, list) else [mask]
        return sum(others, x if mask is None else x * ops.cast(mask, x.dtype)[..., None])


class KeepsSecondByMask(L.Layer):
    def call(self, first, second, second_mask=None):
        return first + (second if second_mask is None else second * ops.cast(second_mask, second.dtype)[..., None])


def inside_of_a_model(layer):
    x = keras.Input((4, 3))
    return keras.Model(x, layer(x))


# Keras records a mask that it hands in by itself only of a call with one tensor and nothing else.
UNRECORDED_MASKS = {
    "mean, with a keyword": lambda x, masked: L.GlobalAveragePooling1D()(masked, mask=None),
    "mean in a model": lambda x, masked: inside_of_a_model(L.GlobalAveragePooling1D())(masked),
    "mean in a model, by keyword": lambda x, masked: inside_of_a_model(L.GlobalAveragePooling1D())(inputs=masked),
    "recurrent, with a keyword": lambda x, masked: L.SimpleRNN(2, activation=None)(masked, training=False),
    "recurrent in a model": lambda x, masked: inside_of_a_model(L.SimpleRNN(2, activation=None))(masked),
    "list": lambda x, masked: KeepsByMask()([x, masked]),
    "one of two tensors": lambda x, masked: KeepsSecondByMask()(x, masked),
    "one of two tensors, by keyword": lambda x, masked: KeepsSecondByMask()(x, second=masked),
    "one tensor in a model": lambda x, masked: inside_of_a_model(KeepsByMask())(masked),
}


@pytest.mark.parametrize("name", UNRECORDED_MASKS)
def test_a_mask_that_keras_hands_in_without_recording_it_is_part_of_the_operator(name):
    x = keras.Input((4, 3))
    model = keras.Model(x, UNRECORDED_MASKS[name](x, L.Masking()(x)))
    for refused in (ka.adjoint, ka.operator, partial(ka.plan_blocks, input_size=(4, 3), block=2), ka.stream):
        with pytest.raises(ka.NoRuleError, match="mask"):
            refused(model)
    assert not np.isfinite(ka.certify(model).bound)


def test_an_autoencoder_reads_a_mask_that_keras_does_not_record():
    x = keras.Input((4, 3))
    model = keras.Model(x, L.GlobalAveragePooling1D()(L.Masking()(x), mask=None))
    given = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    given[0, 1] = given[1, 2:] = 0
    kept = (given != 0).any(-1)
    expected = values(model(given))[:, None] * (kept / kept.sum(1, keepdims=True))[..., None]
    assert_close(values(ka.autoencoder(model, pooling="average")(given)), expected)


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
