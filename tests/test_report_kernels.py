"""The report's kernels: values that are not finite, singular values, and pictures."""

import base64
import io
import re

import keras
import numpy as np
import pytest
from encoders import chain
from keras import layers
from PIL import Image
from test_report import Read, page

import keras_adjoint as ka
from keras_adjoint.operators.certificate import at_most
from keras_adjoint.report import norms
from keras_adjoint.report.pictures import kernel_picture
from keras_adjoint.report.spectrum import spectrum_of

pytestmark = pytest.mark.any_backend

# --- kernels that are not finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: [layers.Conv2D(4, 3, name="broken"), layers.Flatten(), layers.Dense(3)], (9, 9, 3)),
        (lambda: [layers.Dense(4, name="broken")], (8,)),
        (lambda: [layers.Conv1D(4, 3, name="broken")], (16, 2)),
    ],
    ids=["pictures", "vectors", "signals"],
)
def test_values_that_are_not_finite_are_counted_and_shown(make, shape, value):
    model = chain(*make(), shape=shape)
    kernel = keras.ops.convert_to_numpy(model.get_layer("broken").kernel).copy()
    kernel.flat[0] = value
    model.get_layer("broken").kernel.assign(kernel)
    read = Read(page(model))
    assert "1 value is not finite" in read.text
    assert "Not computed: its kernel has values that are not finite." in read.text
    assert "PSNR not finite" in read.text and "difference not finite" in read.text
    assert "nan" not in re.findall(r"[a-z]+", read.text)
    assert not [each for svg in read.all("polyline") for each in svg["points"].split() if "n" in each]


def test_numbers_too_large_for_their_squares_are_not_called_equal():
    model = chain(layers.Conv2D(4, 3, name="huge", use_bias=False))
    model.get_layer("huge").kernel.assign(np.full((3, 3, 3, 4), 1e30))
    text = Read(page(model)).text
    assert "no difference" not in text and "PSNR not finite" in text


# --- norms


def test_the_norm_is_that_at_the_size_of_the_layer_and_the_bound_is_above():
    model = chain(layers.Conv2D(4, 3, strides=2, activation="relu", name="conv"), shape=(13, 11, 3))
    operator = ka.operator(model.get_layer("conv"), linear_part=True)
    text = Read(page(model)).text
    norm = np.linalg.norm(operator.to_matrix().astype("float64"), 2)
    bound = float(keras.ops.convert_to_numpy(operator.bound()))
    assert f"norm {norm:.4g} norm at most {at_most(bound)}, for inputs of 13×11×3" in text
    assert float(at_most(bound)) >= bound > norm


def test_norms_that_take_long_are_not_computed(monkeypatch):
    model = chain(layers.Conv2D(4, 3), layers.Conv2DTranspose(3, 3), layers.Dense(2), shape=(9, 8, 3))
    text = Read(page(model)).text
    assert text.count(" norm at most ") == 3 and "takes long" not in text
    for limit in ("SECONDS", "WORK"):
        with monkeypatch.context() as patched:
            patched.setattr(norms, limit, 0)
            text = Read(page(model)).text
            assert text.count("not computed for this page, as it takes long; keras-adjoint spectrum computes it") == 3
            assert "norm at most" not in text
    monkeypatch.setattr(norms, "SIDE", 1)
    text = Read(page(model)).text
    assert text.count("norm at most") == 3 and not re.search(r"norm \d", text)


# --- singular values


def test_the_spectrum_of_a_matrix_is_its_own():
    dense = layers.Dense(5)
    dense.build((None, 8))
    expected = np.linalg.svd(keras.ops.convert_to_numpy(dense.kernel), compute_uv=False)
    found = spectrum_of(dense)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)
    assert found.note.startswith("Exact")


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(3, 3),
        lambda: layers.Conv2D(4, 3, groups=2, dilation_rate=2),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        lambda: layers.Conv1D(3, 5),
    ],
    ids=["plain", "grouped and dilated", "depthwise", "one axis"],
)
def test_the_spectrum_of_a_convolution_is_that_of_its_circular_matrix(layer, monkeypatch):
    monkeypatch.setattr("keras_adjoint.report.spectrum.LENGTHS", (6,))
    layer = layer()
    rank, channels = len(layer.kernel_size), 2
    layer.build((None, *[9] * rank, channels))
    basis = np.eye(6**rank * channels, dtype="float32").reshape(-1, *[6] * rank, channels)
    reach = [(taps - 1) * rate for taps, rate in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    around = np.pad(basis, [(0, 0), *((0, size) for size in reach), (0, 0)], mode="wrap")
    matrix = keras.ops.convert_to_numpy(layer(around)).reshape(len(basis), -1)
    values = np.sort(np.linalg.svd(matrix, compute_uv=False))[::-1]
    found = spectrum_of(layer)
    np.testing.assert_allclose(found.values[[0, -1]], values[[0, -1]], rtol=1e-4, atol=1e-4)
    assert found.note.startswith("Approximate: those of the circular convolution of size 6")
    assert found.size.startswith("6") and found.size in found.note


def test_with_one_tap_the_spectrum_is_exact_whatever_the_stride():
    conv = layers.Conv2D(4, 1, strides=2)
    conv.build((None, 8, 8, 3))
    kernel = keras.ops.convert_to_numpy(conv.kernel)[0, 0]
    np.testing.assert_allclose(spectrum_of(conv).values, np.linalg.svd(kernel, compute_uv=False), rtol=1e-5)


@pytest.mark.parametrize(
    "layer, shape, why",
    [
        (lambda: layers.Conv2D(4, 3, strides=2), (8, 8, 3), "stride above 1"),
        (lambda: layers.Dense(4096), (4096,), "4096×4096 is too large"),
        (lambda: layers.SeparableConv2D(4, 3), (8, 8, 3), "of Dense layers and of convolutions"),
    ],
)
def test_the_reason_for_a_missing_spectrum_is_given(layer, shape, why):
    layer = layer()
    layer.build((None, *shape))
    found = spectrum_of(layer)
    assert len(found.values) == 0 and found.note.startswith("Not computed") and why in found.note


# --- pictures


def decoded(picture):
    kind, data = picture.source.split(",")
    assert kind.endswith(";base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def test_kernel_pictures_lose_nothing_as_long_as_a_palette_holds_them():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, size=(250, 4), dtype="uint8")[generator.integers(0, 250, size=(20, 30))]
    np.testing.assert_array_equal(decoded(kernel_picture(pixels, "")), pixels)


def test_kernel_pictures_of_more_colours_come_close():
    pixels = np.random.default_rng(0).integers(0, 256, size=(40, 40, 4), dtype="uint8")
    difference = decoded(kernel_picture(pixels, "")).astype(int) - pixels
    assert np.abs(difference).mean() < 40
