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
        (RAMP.astype("float32"), "float.tiff"),
    ],
)
def test_a_ramp_is_a_ramp_whatever_its_depth(tmp_path, numbers, name):
    np.testing.assert_allclose(written(tmp_path, numbers, name), RAMP, atol=1.01 / 255)


@pytest.mark.parametrize(
    "numbers, reason",
    [
        ((255 * RAMP).astype("float32"), "go from 0 to 255, and not from 0 to 1"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype("float32"), "go from nan to nan"),
        (RAMP.astype("float32") - 0.5, "go from -0.5 to 0.5"),
        ((255 * RAMP).astype("int32"), "32 bits, and none of them says what is white"),
    ],
)
def test_a_picture_whose_white_is_unknown_is_refused(tmp_path, numbers, reason):
    with pytest.raises(ValueError, match=f"picture.tiff cannot be read as a picture: .*{reason}"):
        written(tmp_path, numbers, "picture.tiff")


@pytest.mark.parametrize("limits", [("nan", "nan"), ("0", "inf"), ("-inf", "1"), ("1", "1")])
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
