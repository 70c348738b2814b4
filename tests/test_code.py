"""Autoencoders are recognised, and taken apart at their code."""

import json

import keras
import numpy as np
import pytest
from command_line import complains, run, saved
from keras import layers
from PIL import Image

from keras_adjoint.models.code import autoencoder_hint, encoder_up_to, narrowest_cut
from keras_adjoint.models.graph import trace

pytestmark = pytest.mark.any_backend


def halves(shape=(12, 8, 1)):
    """An encoder and a decoder as nested models in one."""
    image = keras.Input(shape)
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="first")(image)
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(2, 3, strides=2, padding="same", name="second")(x))
    encoder = keras.Model(image, layers.ReLU(name="code")(x), name="encoder")
    code = keras.Input(encoder.output_shape[1:])
    y = layers.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu", name="third")(code)
    decoder = keras.Model(code, layers.Conv2DTranspose(shape[-1], 3, strides=2, padding="same", name="last")(y))
    whole = keras.Input(shape)
    return keras.Model(whole, decoder(encoder(whole)), name="both")


def dense(*units, activation=None):
    return keras.Sequential(
        [keras.Input((8,)), *(layers.Dense(n, activation, name=f"dense{number}") for number, n in enumerate(units))]
    )


def skipping():
    """The narrow layer is passed by: no code."""
    x = keras.Input((8,))
    return keras.Model(x, layers.Add()([layers.Dense(8)(layers.Dense(2)(x)), x]))


def masked():
    """A mask passes the code beside it, so that not everything passes it."""
    x = keras.Input((5, 4))
    y = layers.Masking()(x)
    return keras.Model(x, layers.SimpleRNN(4, return_sequences=True)(layers.Dense(2, name="narrow")(y)))


@pytest.mark.parametrize(
    "model, code",
    [
        (halves, "encoder/code"),
        (lambda: dense(5, 2, 5, 8), "dense1"),
        (lambda: dense(4, 6, 4, 8), "dense0"),
        (skipping, None),
        (masked, None),
        (lambda: dense(9, 8), None),
        (lambda: dense(8), None),
    ],
    ids=["nested", "dense", "the first of several", "skip connection", "mask", "wider inside", "one layer"],
)
def test_the_code_is_the_narrowest_tensor_that_everything_passes(model, code):
    cut = narrowest_cut(trace(model()))
    assert (cut and cut.layer) == code


def test_the_activation_and_the_dropout_of_the_narrowest_layer_belong_to_the_code():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(2), layers.ReLU(name="relu"), layers.Dense(2, name="no")])
    assert narrowest_cut(trace(model)).layer == "relu"


def test_only_models_that_give_back_their_shape_are_said_to_be_autoencoders():
    for model, words in (
        (halves(), "Its code seems to be the output of `encoder/code`, 3×2×2."),
        (halves((None, None, 1)), "as an autoencoder does."),
        (dense(2, 3), ""),
        (skipping(), ""),
        (dense(8), ""),
    ):
        hint, _ = autoencoder_hint(model, trace(model))
        assert hint.endswith(words) and bool(hint) == bool(words)


@pytest.mark.parametrize("layer", ["encoder", "encoder/code", "code"])
def test_the_encoder_computes_what_the_model_does_up_to_the_code(layer):
    model = halves()
    x = np.random.default_rng(0).standard_normal((2, 12, 8, 1)).astype("float32")
    encoder = encoder_up_to(model, layer)
    ours, theirs = (keras.ops.convert_to_numpy(part(x)) for part in (encoder, model.get_layer("encoder")))
    np.testing.assert_array_equal(ours, theirs)
    assert {id(weight) for weight in encoder.weights} < {id(weight) for weight in model.weights}


# --- on the command line


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return saved(halves(), tmp_path_factory.mktemp("models"))


def test_inspect_says_that_it_is_an_autoencoder(file):
    result = run("inspect", file)
    assert "as an autoencoder does" in result.stdout and "--code encoder/code" in result.stdout
    data = json.loads(run("inspect", file, "--json").stdout)
    assert data["narrowest"] == {"layer": "encoder/code", "shape": [None, 3, 2, 2]} and data["code"] is None


@pytest.mark.parametrize("code", ["narrowest", "encoder", "encoder/code"])
def test_what_comes_after_the_code_is_left_out(code, file):
    result = run("inspect", file, "--json", "--code", code)
    data = json.loads(result.stdout)
    assert result.exit_code == 0 and data["code"] == code and data["narrowest"] is None
    assert [layer["layer"].rpartition("/")[2] for layer in data["layers"]] == ["first", "second", "norm", "code"]


def test_mirror_says_so_and_makes_the_decoder_of_the_encoder(file):
    out = file.with_name("decoder.keras")
    assert "as an autoencoder does" in run("mirror", file, "-o", out, "--force").stdout
    result = run("mirror", file, "-o", out, "--force", "--code", "narrowest", "--json")
    data = json.loads(result.stdout)
    assert (data["input_shape"], data["output_shape"]) == ([None, 3, 2, 2], [None, 12, 8, 1])


def test_the_report_says_so(file):
    page = file.with_name("page.html")
    run("report", file, "-o", page, "--force")
    assert "Is this an autoencoder?" in page.read_text()
    result = run("report", file, "-o", page, "--force", "--code", "encoder")
    assert "autoencoder?" not in page.read_text() and "Conv2DTranspose" not in page.read_text().partition("Kernels")[2]
    assert result.exit_code == 0


@pytest.mark.parametrize("layer, told", [("first", False), ("code", False), ("third", True)])
def test_deconv_says_that_a_layer_comes_after_the_code(layer, told, file):
    picture = file.with_name("photo.png")
    Image.fromarray(np.arange(96, dtype="uint8").reshape(12, 8)).save(picture)
    result = run("deconv", file, picture, "--layer", layer, "-o", file.with_name("out.png"), "--force")
    assert result.exit_code == 0
    assert ("comes after its narrowest place" in result.stdout) == told


@pytest.mark.parametrize(
    "model, code, words",
    [
        (halves, "cod", "no layer of the name cod, but code"),
        (halves, "foo", "keras-adjoint inspect lists all of them. Received: --code foo"),
        (skipping, "narrowest", "Name the layer whose output is the code"),
        (lambda: dense(2), "x", "no layer of the name x, but"),
    ],
)
def test_a_code_that_is_not_there(model, code, words, tmp_path):
    complains(run("inspect", saved(model(), tmp_path), "--code", code), words)
