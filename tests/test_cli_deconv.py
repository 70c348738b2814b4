"""`keras-adjoint deconv`: the photograph as the model sees it, its strongest features, and the picture of them."""

import json
import re
import sys

import keras
import numpy as np
import pytest
from command_line import complains, run, saved
from keras import layers
from PIL import Image

import keras_adjoint as ka
from keras_adjoint.plots import photographs
from keras_adjoint_cli.actions import deconv as features
from keras_adjoint_cli.output.deconv import place as text_of_box

pytestmark = pytest.mark.any_backend


def network(size=(40, 32, 3), data_format="channels_last", before=()):
    image = x = keras.Input(size)
    for layer in before:
        x = layer(x)
    for number, filters in enumerate((6, 12), 1):
        x = layers.Conv2D(filters, 3, activation="relu", data_format=data_format, name=f"conv{number}")(x)
        x = layers.MaxPooling2D(2, data_format=data_format, name=f"pool{number}")(x)
    x = layers.Dense(7, name="top")(layers.Flatten(name="flat")(x)) if None not in size else x
    return keras.Model(image, x, name="network")


def photo(folder, size=(50, 60), mode="RGB", name="photo.png"):
    """A picture of `size` = (height, width), grey but for a coloured square in its upper left quarter."""
    values = np.full((*size, 3), 128, "uint8")
    generator = np.random.default_rng(0)
    values[size[0] // 6 : size[0] // 3, size[1] // 4 : size[1] // 2] = generator.integers(0, 255, (1, 1, 3))
    file = folder / name
    Image.fromarray(values).convert(mode).save(file)
    return file


def seen(model, folder, *options, picture=None):
    """What the command says about a model and a picture."""
    out = folder / "seen.png"
    picture = picture or photo(folder)
    result = run("deconv", saved(model, folder), picture, "-o", out, "--force", "--json", *options)
    assert result.exit_code == 0, result.output
    with Image.open(out) as opened:
        assert min(opened.size) > 300
    return json.loads(result.stdout)


def test_the_strongest_features_are_those_of_the_layer(tmp_path):
    model = network()
    data = seen(model, tmp_path, "--layer", "conv2", "--strongest", 4)
    picture = np.asarray(Image.open(tmp_path / "photo.png"), "float32") / 255
    assert data["size"] == [40, 32] and data["range"] == [0.0, 1.0]
    x = photographs.read(tmp_path / "photo.png", (None, 40, 32, 3), "channels_last")
    assert x.shape == (40, 32, 3) and abs(x.mean() - picture.mean()) < 0.1
    values = keras.ops.convert_to_numpy(keras.Model(model.input, model.get_layer("conv2").output)(x[None]))[0]
    order = np.argsort(-values.max((0, 1)), kind="stable")[:4]
    assert [feature["channel"] for feature in data["features"]] == order.tolist()
    for feature in data["features"]:
        row, column = feature["unit"]
        assert feature["strength"] == pytest.approx(values[row, column, feature["channel"]], rel=1e-5)
        assert feature["strength"] == pytest.approx(values[..., feature["channel"]].max(), rel=1e-5)


def test_a_box_holds_the_patch_that_a_unit_sees(tmp_path):
    """A unit of conv2 at (i, j) sees 8 × 8 pixels from (2 i, 2 j) on: 3 taps, pooled by 2, 3 taps."""
    found = features.project(network(), photo(tmp_path), "conv2", strongest=3)
    for feature in found.features:
        top, left, bottom, right = feature.box
        assert 0 < bottom - top <= 8 and 0 < right - left <= 8
        for start, stop, place in zip((top, left), (bottom, right), feature.unit, strict=True):
            assert 2 * place <= (start + stop) / 2 <= 2 * place + 8
        inside = np.square(feature.projection[top:bottom, left:right]).sum()
        assert inside > 0.98 * np.square(feature.projection).sum()


def test_projections_are_those_of_the_library(tmp_path):
    model, options = network(), {"strongest": 3, "texts": ["activation=guided"]}
    found = features.project(model, photo(tmp_path), "conv2", **options)
    x = found.photograph[None]
    expected = ka.deconvnet(model, "conv2", strongest=3, activation="guided")(x)
    stacked = np.stack([feature.projection for feature in found.features])
    np.testing.assert_allclose(stacked, keras.ops.convert_to_numpy(expected)[0], rtol=1e-5, atol=1e-6)


def test_a_policy_for_one_layer_leaves_the_others_to_the_deconvnet(tmp_path):
    model = network()
    options = {"strongest": 2, "texts": ["activation:conv1=linear"]}
    found = features.project(model, photo(tmp_path), "conv2", **options)
    activation = {"conv1": "linear", "default": "deconvnet"}
    expected = ka.deconvnet(model, "conv2", strongest=2, activation=activation)(found.photograph[None])
    stacked = np.stack([feature.projection for feature in found.features])
    np.testing.assert_allclose(stacked, keras.ops.convert_to_numpy(expected)[0], rtol=1e-5, atol=1e-6)


def test_one_channel(tmp_path):
    data = seen(network(), tmp_path, "--layer", "conv1", "--channel", 2, "--strongest", 5)
    assert [feature["channel"] for feature in data["features"]] == [2] * 5
    strengths = [feature["strength"] for feature in data["features"]]
    assert strengths == sorted(strengths, reverse=True)


def test_by_default_there_are_nine_features_or_as_many_as_the_layer_has(tmp_path):
    model = network()
    for layer, count in (("conv1", 6), ("conv2", 9), ("top", 7)):
        assert len(seen(model, tmp_path, "--layer", layer)["features"]) == count


@pytest.mark.parametrize(("channels", "mode"), [(1, "RGB"), (3, "L"), (3, "RGBA"), (3, "P"), (4, "RGB")])
def test_pictures_come_in_the_colours_of_the_model(channels, mode, tmp_path):
    picture = photo(tmp_path, mode=mode)
    assert photographs.read(picture, (None, 20, 20, channels), "channels_last").shape == (20, 20, channels)
    seen(network((40, 32, channels)), tmp_path, "--layer", "conv2", picture=picture)


def test_a_model_of_unknown_size_takes_the_photographs(tmp_path):
    model = network((None, None, 3))
    assert seen(model, tmp_path, "--layer", "conv2")["size"] == [50, 60]
    assert seen(model, tmp_path, "--layer", "conv2", "--size", 30)["size"] == [25, 30]
    large = photo(tmp_path, (300, 900), name="large.jpg")
    assert seen(model, tmp_path, "--layer", "conv1", "--strongest", 1, picture=large)["size"] == [171, 512]


def test_a_photograph_is_cut_rather_than_distorted(tmp_path):
    """A white disc in a wide picture is as wide as it is high for a square model."""
    y, x = np.mgrid[:60, :120]
    disc = 255 * ((y - 30) ** 2 + (x - 60) ** 2 < 400).astype("uint8")
    Image.fromarray(disc).save(tmp_path / "disc.png")
    picture = photographs.read(tmp_path / "disc.png", (None, 30, 30, 1), "channels_last")[..., 0]
    assert picture.max(0).sum() == pytest.approx(picture.max(1).sum(), rel=0.05)


def test_a_photograph_on_its_side_is_turned(tmp_path):
    picture = Image.fromarray(np.zeros((20, 40, 3), "uint8"))
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert photographs.read(tmp_path / "turned.jpg", (None, None, None, 3), "channels_last").shape == (40, 20, 3)


def test_ranges(tmp_path):
    scaled = network(before=[layers.Rescaling(1 / 255)])
    assert seen(scaled, tmp_path, "--layer", "conv1")["range"] == [0.0, 255.0]
    assert seen(network(), tmp_path, "--layer", "conv1", "--range", -1, 1)["range"] == [-1.0, 1.0]
    half = np.full((4, 4, 3), 0.5)
    np.testing.assert_array_equal(photographs.as_input(half, -1, 3, "channels_first"), np.ones((1, 3, 4, 4)))


@pytest.mark.only_on("jax", "torch")  # TensorFlow has no such convolutions on a CPU
def test_channels_first(tmp_path):
    data = seen(network((3, 40, 32), "channels_first"), tmp_path, "--layer", "conv2", "--strongest", 2)
    assert data["size"] == [40, 32] and len(data["features"]) == 2


def test_the_table_for_people(tmp_path):
    out = tmp_path / "seen.svg"
    result = run("deconv", saved(network(), tmp_path), photo(tmp_path), "--layer", "conv2", "-o", out, "--strongest", 2)
    assert result.exit_code == 0
    assert "The model saw 40×32 pixels, height×width, from 0 to 1" in result.stdout
    assert "unit: row, column" in result.stdout and "pixels: top, left" in result.stdout
    assert text_of_box((1, 2, 4, 7)) == "1, 2, 3×5"
    assert out.read_text(encoding="utf-8").count("<svg") == 1


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["--layer", "conv3"], "no layer of the name conv3, but conv2, conv1"),
        (["--layer", "conv2", "--channel", "12"], "The features have 12 channels"),
        (["--layer", "conv2", "--strongest", "13"], "There are 12 channels to choose from"),
        (["--layer", "conv2", "--size", "40"], "The model takes pictures of 32×40 pixels"),
        (["--layer", "conv2", "--policy", "activation=rely"], "or any activation of Keras"),
        (["--layer", "conv2", "--policy", "pool=switches"], "The policies are called"),
    ],
)
def test_wrong_options(options, answer, tmp_path):
    file, picture = saved(network(), tmp_path), photo(tmp_path)
    complains(run("deconv", file, picture, "-o", tmp_path / "seen.png", *options), answer)
    assert not (tmp_path / "seen.png").exists()


def test_models_that_take_no_picture(tmp_path):
    sound = keras.Sequential([keras.Input((20, 3)), layers.Conv1D(4, 3, name="conv")])
    complains(
        run("deconv", saved(sound, tmp_path), photo(tmp_path), "--layer", "conv", "-o", tmp_path / "o.png"), "shape"
    )
    layered = keras.Sequential([keras.Input((20, 20, 7)), layers.Conv2D(4, 3, name="conv")])
    result = run("deconv", saved(layered, tmp_path), photo(tmp_path), "--layer", "conv", "-o", tmp_path / "o.png")
    complains(result, "takes 7 channels")
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    two = keras.Model([a, b], layers.Add(name="both")([a, b]))
    result = run("deconv", saved(two, tmp_path), photo(tmp_path), "--layer", "both", "-o", tmp_path / "o.png")
    complains(result, "takes 2 inputs")


def test_pictures_that_are_none(tmp_path):
    file, out, whole = saved(network(), tmp_path), tmp_path / "seen.png", photo(tmp_path)
    (tmp_path / "words.jpg").write_text("no picture")
    (tmp_path / "part.png").write_bytes(whole.read_bytes()[:60])
    for picture, answer in (
        ("words.jpg", "cannot be read as a picture: it is none"),
        ("part.png", "cannot be read as a picture"),
        ("missing.jpg", "There is no file"),
        (".", "is a folder, not a picture"),
    ):
        complains(run("deconv", file, tmp_path / picture, "--layer", "conv2", "-o", out), answer)
    before = whole.read_bytes()
    complains(run("deconv", file, whole, "--layer", "conv2", "-o", whole, "--force"), "never overwritten")
    complains(run("deconv", file, whole, "--layer", "conv2", "-o", tmp_path / "seen.tiff"), ".png or .jpg")
    assert whole.read_bytes() == before and not out.exists()


@pytest.mark.parametrize("missing", ["matplotlib", "PIL"])
def test_without_its_packages_the_command_says_what_to_install(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    complains(run("deconv", "m.keras", "p.jpg", "--layer", "conv", "-o", "o.png"), 'pip install "keras-adjoint[plot]"')


def test_advice_is_in_the_options_of_the_command(tmp_path):
    inputs = keras.Input((16, 16, 3))
    hidden = layers.Conv2D(4, 3, name="first", activation="gelu")(inputs)
    model = saved(keras.Model(inputs, layers.Conv2D(4, 3, name="second")(hidden)), tmp_path)
    command = ("deconv", model, photo(tmp_path), "--layer", "second", "-o", tmp_path / "seen.png")
    refused = run(*command)
    advised = re.findall(r"--policy (\S+?)(?=[ `])", refused.stderr)
    assert refused.exit_code == 2 and {"activation=gradient", "activation:first=linear"} < set(advised)
    assert "activation=`" not in refused.stderr and "{" not in refused.stderr
    for options in (advised[:1], advised[1:]):
        assert run(*command, *(part for one in options for part in ("--policy", one)), "--force").exit_code == 0
