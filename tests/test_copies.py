"""What copies and files make of a tie where they cannot keep it: a kernel of their own, said in words, and with its switch."""

import copy
import json
import pickle
import warnings
import zipfile

import keras
import numpy as np
import pytest
from encoders import chain, values
from helpers import BACKEND
from keras import ops

import keras_adjoint as ka
from keras_adjoint.ops.backend import current

L = keras.layers
X = np.random.default_rng(0).normal(size=(2, 9, 9, 2)).astype("float32")


def encoder():
    return chain(L.Conv2D(4, 3, strides=2, name="conv"), shape=(9, 9, 2))


def pair():
    source = encoder()
    return source, ka.mirror(source, name="decoder")


# --- pairs


def in_a_module(models):
    import torch

    module = torch.nn.Module()
    module.encoder, module.decoder = models
    copied = copy.deepcopy(module)
    return copied.encoder, copied.decoder


COPIES = {
    "deepcopy of a tuple": copy.deepcopy,
    "pickle of a list": lambda models: pickle.loads(pickle.dumps(list(models))),
    "pickle of a dictionary": lambda models: pickle.loads(pickle.dumps(dict(enumerate(models)))).values(),
    "deepcopy of the decoder": lambda models: (models[0], copy.deepcopy(models[1])),
}
if BACKEND == "torch":
    COPIES["deepcopy of a module"] = in_a_module


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_of_pairs_say_that_they_are_not_tied(copied):
    models = pair()
    with pytest.warns(
        UserWarning, match=r"`conv_adjoint` was tied to the kernel of `conv`.*deepcopy.*one `keras.Model`"
    ):
        first, second = copied(models)
    assert not ka.is_tied(first, second)
    code = values(models[0](X))
    np.testing.assert_allclose(values(second(code)), values(models[1](code)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_both_in_one_model_is_tied_and_says_nothing(copied):
    model = ka.autoencoder(encoder())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert ka.is_tied(copied(model))
        untied = ka.mirror(encoder(), tied=False)
        copied(untied)


@pytest.mark.parametrize("copied", [copy.deepcopy, keras.models.clone_model, lambda m: m.from_config(m.get_config())])
def test_copies_of_what_has_no_kernel_say_nothing(copied):
    x = keras.Input((4, 3))
    model = ka.adjoint(keras.Model(x, L.Rescaling(2.0)(L.Add()([L.UpSampling1D(2)(x), ops.tile(x, (1, 2, 1))]))))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        copied(model)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_a_model_in_hdf5_names_the_format(tmp_path):
    model = ka.autoencoder(encoder())
    model.save(tmp_path / "m.h5")
    with pytest.warns(UserWarning, match=r"`conv_adjoint` was tied to.*HDF5.*`\.keras`") as found:
        loaded = keras.saving.load_model(tmp_path / "m.h5")
    assert not any("clone_model" in str(warning.message) for warning in found)
    assert not ka.is_tied(loaded)


# --- a decoder alone


def loaded_alone(tmp_path):
    _, decoder = pair()
    decoder.save(tmp_path / "d.keras")
    return keras.saving.load_model(tmp_path / "d.keras")


def test_a_decoder_that_was_loaded_alone_can_be_frozen(tmp_path):
    decoder = loaded_alone(tmp_path)
    model = keras.Sequential([keras.Input((9, 9, 2)), L.Conv2D(4, 3, strides=2), decoder])
    own = len(model.trainable_weights)
    assert own == 2 + len(decoder.trainable_weights)
    decoder.trainable = False
    assert len(model.trainable_weights) == 2
    before = [values(weight).copy() for weight in decoder.weights]
    model.compile("sgd", "mse")
    model.fit(X, X, verbose=0)
    for weight, value in zip(decoder.weights, before, strict=True):
        np.testing.assert_array_equal(values(weight), value)
    decoder.trainable = True
    assert len(model.trainable_weights) == own


def by_file(model, tmp_path):
    model.save(tmp_path / "m.keras")
    return keras.saving.load_model(tmp_path / "m.keras")


FROZEN_COPIES = {
    "file": by_file,
    "clone_tied": lambda model, _: ka.clone_tied(model),
    "clone_model": lambda model, _: keras.models.clone_model(model),
    "deepcopy": lambda model, _: copy.deepcopy(model),
}


@pytest.mark.parametrize("copied", FROZEN_COPIES.values(), ids=FROZEN_COPIES)
@pytest.mark.parametrize("part", ["model", "layer", "sequential"])
@pytest.mark.filterwarnings("ignore:.*was tied to the kernel")
def test_a_frozen_decoder_is_frozen_when_it_is_alone(part, copied, tmp_path):
    _, decoder = pair()
    if part == "sequential":
        decoder = keras.Sequential([keras.Input(decoder.input_shape[1:]), decoder.get_layer("conv_adjoint")])
    (decoder.get_layer("conv_adjoint") if part == "layer" else decoder).trainable = False
    alone = copied(decoder, tmp_path)
    assert alone.weights and not alone.trainable_weights
    alone.trainable = False  # on TensorFlow, Keras does nothing where the switch of the model is on already
    alone.trainable = True
    assert alone.trainable_weights


@pytest.mark.parametrize("decoder_first", [False, True])
def test_the_layer_that_a_frozen_decoder_reads_is_not_frozen_with_it(decoder_first, tmp_path):
    dense = L.Dense(3)
    dense.build((None, 3))
    y, x = keras.Input((3,)), keras.Input((3,))
    decoder = keras.Model(y, ka.adjoint(dense, bias="own")(y))
    decoder.trainable = False
    model = keras.Model(x, dense(decoder(x)) if decoder_first else decoder(dense(x)))
    for each in (model, by_file(model, tmp_path), ka.clone_tied(model)):
        assert len(each.trainable_weights) == 2 and len(each.non_trainable_weights) == 1


@pytest.mark.parametrize("decoder_first", [False, True])
def test_a_decoder_that_was_loaded_with_its_encoder_freezes_alone(tmp_path, decoder_first):
    source, decoder = pair()
    x = keras.Input(decoder.input_shape[1:] if decoder_first else (9, 9, 2))
    order = (decoder, source) if decoder_first else (source, decoder)
    keras.Model(x, order[1](order[0](x))).save(tmp_path / "m.keras")
    model = keras.saving.load_model(tmp_path / "m.keras")
    assert ka.is_tied(model)
    model.get_layer("decoder").trainable = False
    assert len(model.trainable_weights) == 2  # the kernel and the bias of the encoder
    assert all(layer.trainable for layer in model.get_layer("encoder").layers)


def test_parameters_of_a_decoder_loaded_alone_are_its_own(tmp_path):
    decoder = loaded_alone(tmp_path)
    assert sum(layer.count_params() for layer in decoder.layers) == decoder.count_params()


# --- sizes


SIZED = {
    "convolution": (lambda: L.Conv2D(4, 3, strides=2, padding="same"), (9, 9, 2), (10, 10, 2)),
    "average pooling": (lambda: L.AveragePooling2D(2), (9, 9, 2), (8, 8, 2)),
    "flatten": (lambda: L.Flatten(), (4, 3), (6, 2)),
    "global pooling": (lambda: L.GlobalAveragePooling2D(), (5, 4, 2), (6, 7, 2)),
    "depthwise": (lambda: L.DepthwiseConv2D(3, strides=2, padding="same"), (9, 9, 2), (10, 10, 2)),
}


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("by_mirror", [False, True], ids=["adjoint", "mirror"])
def test_a_decoder_keeps_the_size_that_was_known_when_it_was_made(name, by_mirror, tmp_path):
    make, shape, other_shape = SIZED[name]
    source, x = make(), keras.Input(shape)
    model = keras.Model(x, source(x))
    code = keras.Input(model.output_shape[1:])
    decoder = ka.mirror(model) if by_mirror else keras.Model(code, ka.adjoint(source)(code))
    y = np.random.default_rng(0).normal(size=(2, *model.output_shape[1:])).astype("float32")
    expected = values(decoder(y))
    assert expected.shape == (2, *shape)
    source(keras.Input(other_shape))
    decoder.save(tmp_path / "d.keras")
    for decoder_after in (decoder, keras.saving.load_model(tmp_path / "d.keras"), ka.clone_tied(decoder)):
        np.testing.assert_allclose(values(decoder_after(y)), expected, rtol=1e-5, atol=1e-6)
    assert keras.Model(code, decoder(code)).output_shape == (None, *shape)


# --- algorithms


def test_an_algorithm_chosen_for_one_backend_is_left_behind_on_another(tmp_path):
    x = keras.Input((9, 9, 2))
    conv = L.Conv2D(4, 3, strides=2)
    code = conv(x)
    model = keras.Model(x, ka.adjoint(conv, algorithm="native", name="back")(code))
    model.save(tmp_path / "m.keras")
    assert keras.saving.load_model(tmp_path / "m.keras").get_layer("back").algorithm == "native"
    elsewhere = as_saved_on_another_backend(tmp_path / "m.keras")
    loaded = keras.saving.load_model(elsewhere)
    assert loaded.get_layer("back").algorithm is None
    np.testing.assert_allclose(values(loaded(X)), values(model(X)), rtol=1e-5, atol=1e-5)


def as_saved_on_another_backend(path):
    """A copy of a file whose algorithm was forced on a backend that has it."""
    other = path.with_name("other.keras")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as copied:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                text = content.decode()
                assert json.loads(text) and f'"backend": "{current().NAME}"' in text
                content = text.replace('"native"', '"fold"').replace(current().NAME, "other")
            copied.writestr(name, content)
    return other
