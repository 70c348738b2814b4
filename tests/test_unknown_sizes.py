"""Sizes that are known only when a model runs: an autoencoder gives what it gives where they are known, or says what to do."""

import keras
import numpy as np
import pytest
from helpers import in_turn
from keras import Input, layers, ops
from operators_of_models import assert_close, flat, model_of, run, saved_and_loaded

import keras_adjoint as ka

SHAPE = (4, 5, 3)
EXACT = {"bias": "none", "norm": "adjoint", "pooling": "average", "preprocessing": "adjoint"}

WITHOUT_RECORDS = {  # whose adjoints need no size
    "joined channels": lambda x: layers.Concatenate()([x, layers.Conv2D(2, 3, padding="same")(x)]),
    "slice from the start": lambda x: x[:, 1:],
    "padding": lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 1], [0, 0]]),
    "cropping": lambda x: layers.Cropping2D(1)(layers.ZeroPadding2D(2)(x)),
    "upsampling": lambda x: layers.UpSampling2D(2)(x),
    "permuted": lambda x: layers.Permute((2, 1, 3))(x),
}
BY_RECORDS = {
    "reshape": lambda x: layers.Reshape((-1, 3))(x),
    "reshape behind a stride": lambda x: layers.Reshape((-1, 2))(layers.Conv2D(2, 3, strides=2)(x)),
    "reshape to patches": lambda x: layers.Reshape((-1, 12))(x),
    "flatten": lambda x: layers.Flatten()(x),
    "flatten, channels first": lambda x: layers.Flatten(data_format="channels_first")(x),
    "nested": lambda x: keras.Sequential([Input((None, None, 3)), layers.Reshape((-1, 3)), layers.Dense(2)])(x),
    "joined along an unknown axis": lambda x: layers.Concatenate(axis=1)([x, layers.ZeroPadding2D(1)(x)[:, :, 1:-1]]),
    "joined by an operation": lambda x: ops.concatenate([x, 2 * x], axis=1),
    "added, one broadcast": lambda x: layers.Add()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)]),
    "mean": lambda x: ops.mean(x, axis=(1, 2)),
    "sum": lambda x: ops.sum(x, axis=1),
    "slice with steps": lambda x: x[:, :-1, ::2],
    "slice from the end": lambda x: x[:, -2:],
    "repeated": lambda x: ops.repeat(x, 2, axis=1),
    "rolled": lambda x: ops.roll(x, 1, axis=1),
    "resized": lambda x: layers.Resizing(3, 4, interpolation="nearest")(x),
    "central crop": lambda x: layers.CenterCrop(2, 2)(x),
    "pooled to a size": lambda x: layers.AdaptiveAveragePooling2D(2)(x),
    "global pooling": lambda x: layers.GlobalAveragePooling2D()(x),
    "one of several parts": lambda x: ops.split(x, 3, axis=-1)[0],
    "several parts, unstacked": lambda x: ops.unstack(x, 3, axis=-1)[1],
    "linear without a rule": lambda x: layers.Lambda(doubled)(x),
    "a product with constants": lambda x: layers.Multiply()([x, np.full((1, 1, 1, 3), 2.0, "float32")]),
}


@keras.saving.register_keras_serializable(package="test_unknown_sizes")
def doubled(x):
    return 2 * x


def two_models(function):
    """The same layers for unknown and for known sizes."""
    unknown, known = Input((None, None, 3)), Input(SHAPE)
    model = model_of(unknown, function(unknown))
    return model, model_of(known, model(known))


@pytest.mark.parametrize("name", in_turn({**BY_RECORDS, **WITHOUT_RECORDS}))
def test_an_autoencoder_reads_the_sizes_of_its_own_input(name, tmp_path):
    model, of_known_size = two_models({**BY_RECORDS, **WITHOUT_RECORDS}[name])
    x = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    autoencoder = ka.autoencoder(model, **EXACT)
    (found,), (expected,) = run(autoencoder, [x]), run(ka.autoencoder(of_known_size, **EXACT), [x])
    assert_close(flat([found]), flat([expected]))
    assert_close(autoencoder.predict(x, verbose=0), expected)  # by a graph, where the backend makes one
    assert_close(run(saved_and_loaded(autoencoder, tmp_path / "autoencoder.keras"), [x])[0], expected)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", WITHOUT_RECORDS)
def test_what_needs_no_size_needs_no_records(name):
    model, of_known_size = two_models(WITHOUT_RECORDS[name])
    ys = run(model, [np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")])
    assert_close(flat(run(ka.adjoint(model), ys)), flat(run(ka.adjoint(of_known_size), ys)))


@pytest.mark.any_backend
@pytest.mark.parametrize("name", BY_RECORDS)
def test_without_records_the_advice_works(name):
    model, of_known_size = two_models(BY_RECORDS[name])
    for make in (ka.adjoint, lambda model: ka.mirror(model, **EXACT)):
        with pytest.raises(ValueError, match=r"Received: ") as raised:
            make(model)
        assert "of known size: `keras.Model(x, " in str(raised.value)
        make(of_known_size)
