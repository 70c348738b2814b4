"""Precision and what replaces a kernel: mixed policies, float64, LoRA and quantisation."""

import keras
import numpy as np
import pytest
from helpers import HALF_PRECISION_POLICIES, in_turn
from keras import ops

import keras_adjoint as ka

L = keras.layers
HALVES = ["mixed_bfloat16", "mixed_float16"]
X = np.random.default_rng(0).normal(size=(2, 9, 8, 4)).astype("float32")


def values(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


@pytest.mark.parametrize("policy", HALVES)
def test_an_adjoint_takes_the_policy_of_its_source_and_passes_its_test_there(policy):
    conv = L.Conv2D(6, 3, strides=2, padding="same", dtype=policy)
    y = conv(X)
    layer = ka.adjoint(conv, bias="own")
    x = layer(y)
    assert keras.backend.standardize_dtype(x.dtype) == conv.compute_dtype
    assert all(weight.dtype == "float32" for weight in layer.weights)
    report = ka.check_adjoint(conv)
    assert report and report.dtype == conv.compute_dtype


@pytest.mark.parametrize("policy", HALVES)
def test_a_wrong_kernel_is_found_out_in_half_precision_too(policy):
    conv = L.Conv2D(4, 3, use_bias=False, padding="same", dtype=policy)
    conv.build((None, 9, 8, 4))
    wrong = L.Conv2DTranspose(4, 3, use_bias=False, padding="same", dtype=policy)
    wrong.build((None, 9, 8, 4))
    wrong.kernel.assign(ops.transpose(conv.kernel, (1, 0, 2, 3)))
    report = ka.check_adjoint(conv, wrong)
    assert not report and "H and W swapped" in report.diagnosis


def test_float64_stays_float64():
    conv = L.Conv2D(6, 3, strides=2, padding="same", dtype="float64")
    y = conv(X)
    for options in ({}, {"bias": "subtract"}, {"bias": "learned"}, {"channels": 5}):
        layer = ka.adjoint(conv, **options)
        assert keras.backend.standardize_dtype(layer(y).dtype) == "float64"
    report = ka.check_adjoint(conv)
    assert report and report.tolerance < 1e-12


@pytest.mark.parametrize("policy", HALF_PRECISION_POLICIES)
def test_a_tied_autoencoder_trains_under_a_mixed_policy(policy):
    inputs = keras.Input((9, 8, 4))
    conv = L.Conv2D(6, 3, strides=2, padding="same", dtype=policy)
    y = conv(inputs)
    model = keras.Model(inputs, L.Activation("linear", dtype="float32")(ka.adjoint(conv, bias="own")(y)))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    losses = model.fit(X, X, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0] and np.isfinite(losses).all()


LORA = {
    "conv": lambda: (L.Conv2D(6, 3, strides=2, padding="same"), X),
    "dense": lambda: (L.Dense(6), X),
    "einsum dense": lambda: (L.EinsumDense("abcd,de->abce", output_shape=(9, 8, 6)), X),
    "embedding": lambda: (L.Embedding(10, 4), np.array([[1, 2, 3]])),
}


@pytest.mark.parametrize("name", LORA)
def test_lora_on_the_source_is_followed(name):
    source, x = LORA[name]()
    y = np.random.default_rng(1).normal(size=source(x).shape).astype("float32")
    layer = ka.adjoint(source)
    before = values(layer(y))
    source.enable_lora(2)
    for weight in source.trainable_weights:
        weight.assign(np.random.default_rng(2).normal(size=weight.shape))
    assert np.abs(values(layer(y)) - before).max() > 0.1
    assert ka.check_adjoint(source, layer)


def test_lora_is_trained_through_the_decoder_and_survives_saving(tmp_path):
    inputs = keras.Input((9, 8, 4))
    conv = L.Conv2D(6, 3, strides=2, padding="same", use_bias=False)
    y = conv(inputs)
    model = keras.Model(inputs, ka.adjoint(conv)(y))
    conv.enable_lora(2)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    losses = model.fit(X, X, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert len(model.trainable_variables) == 2
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(values(loaded(X)), values(model(X)), rtol=1e-4, atol=1e-5)
    assert ka.is_tied(loaded)


QUANTISED = {name: LORA[name] for name in ("dense", "einsum dense", "embedding")}


@pytest.mark.parametrize("lora", [False, True], ids=["", "with LoRA"])
@pytest.mark.parametrize("name", in_turn(QUANTISED, always=["torch"]))
def test_a_kernel_quantised_to_int8_is_dequantised(name, lora):
    source, x = QUANTISED[name]()
    y = np.random.default_rng(1).normal(size=source(x).shape).astype("float32")
    layer = ka.adjoint(source)
    if lora:
        source.enable_lora(2)
        for weight in source.trainable_weights:
            weight.assign(np.random.default_rng(2).normal(size=weight.shape))
    before = values(layer(y))
    source.quantize("int8")
    for adjoint in (layer, ka.adjoint(source)):
        after = values(adjoint(y))
        assert 0 < np.abs(after - before).max() < 0.02 * np.abs(before).max()


@pytest.mark.any_backend
def test_the_adjoint_of_a_quantised_layer_survives_saving(tmp_path):
    inputs = keras.Input((8,))
    dense = L.Dense(6)
    y = dense(inputs)
    model = keras.Model(inputs, ka.adjoint(dense)(y))
    dense.quantize("int8")
    x = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(values(loaded(x)), values(model(x)), rtol=1e-5, atol=1e-5)
    assert ka.is_tied(loaded)
