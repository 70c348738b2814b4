"""Photographs of every depth are read as they look, or refused; so are ranges without numbers."""

import keras
import numpy as np
import pytest
from command_line import complains, run, saved
from keras import layers
from PIL import Image

from keras_adjoint.plots import photographs

pytestmark = pytest.mark.any_backend

RAMP = np.linspace(0, 1, 24).reshape(1, 24).repeat(24, 0)


def written(folder, numbers, name):
    Image.fromarray(numbers).save(folder / name)
    return photographs.read(folder / name, (None, None, None, 1), "channels_last")[..., 0]


@pytest.mark.parametrize(
    "numbers, name",
    [
        ((255 * RAMP).astype("uint8"), "8bit.png"),
        ((65535 * RAMP).astype("uint16"), "16bit.png"),
        ((65535 * RAMP).astype("uint16"), "16bit.tiff"),
        ((65535 * RAMP).astype(">u2"), "16bit-big-endian.tiff"),
        (RAMP.astype("float32"), "float.tiff"),
    ],
)
def test_a_ramp_is_a_ramp_whatever_its_depth(tmp_path, numbers, name):
    np.testing.assert_allclose(
        written(tmp_path, numbers, name), RAMP, atol=(1.01 / 255) if name == "8bit.png" else 1e-4
    )


@pytest.mark.parametrize(
    "numbers, reason",
    [
        ((255 * RAMP).astype("float32"), "go from 0 to 255, and not from 0 to 1"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype("float32"), "some of its numbers are not finite"),
        (RAMP.astype("float32") - 0.5, "go from -0.5 to 0.5"),
        ((255 * RAMP).astype("int32"), "32 bits, and none of them says what is white"),
    ],
)
def test_a_picture_whose_white_is_unknown_is_refused(tmp_path, numbers, reason):
    with pytest.raises(ValueError, match=f"picture.tiff cannot be read as a picture: .*{reason}"):
        written(tmp_path, numbers, "picture.tiff")


def test_an_eps_by_another_name_starts_no_other_program(tmp_path, monkeypatch):
    file = tmp_path / "photo.jpg"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    assert Image.open(file).format == "EPS"
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(ValueError, match="it is none of the formats PNG, JPEG, "):
        photographs.read(file, (None, None, None, 1), "channels_last")


@pytest.mark.parametrize("size", [(9500, 9500), (14000, 14000)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_read(tmp_path, size, monkeypatch):
    Image.new("1", size).save(tmp_path / "photo.png")
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(ValueError, match="it has more than 89,478,485 pixels; make it smaller first"):
        photographs.read(tmp_path / "photo.png", (None, None, None, 1), "channels_last")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_their_precision_in_every_number_of_channels(tmp_path, channels):
    numbers = (65535 * RAMP).astype("uint16")
    Image.fromarray(numbers).save(tmp_path / "photo.png")
    picture = photographs.read(tmp_path / "photo.png", (None, 24, 24, channels), "channels_last")
    assert picture.shape == (24, 24, channels) and picture.dtype == "float32"
    for channel in range(min(3, channels)):
        np.testing.assert_allclose(picture[..., channel], numbers / 65535, atol=1e-6)
    assert (picture[..., 3:] == 1).all()


@pytest.mark.parametrize("limits", [("nan", "nan"), ("0", "inf"), ("-inf", "1"), ("-3e38", "3e38"), ("1", "1")])
def test_a_range_without_numbers_is_refused(tmp_path, limits):
    image = keras.Input((24, 24, 1))
    model = saved(keras.Model(image, layers.Conv2D(2, 3, name="conv")(image)), tmp_path)
    Image.fromarray((255 * RAMP).astype("uint8")).save(tmp_path / "photo.png")
    output = tmp_path / "out.png"
    for command in (
        ("deconv", model, tmp_path / "photo.png", "--layer", "conv", "-o", output),
        ("report", model, "-o", tmp_path / "out.html"),
    ):
        complains(run(*command, "--range", *limits), "two different, finite numbers")
    assert not output.exists()
