"""What the doctor finds in the sizes, strides and versions of models, and models like these that are correct."""

import itertools

import h5py
import keras
import numpy as np
import pytest
import torch
from broken_models import (
    autoencoder,
    chain,
    found,
    places,
    trained,
)
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.doctor.checkerboards import coverage
from keras_adjoint.doctor.models.context import Origin, origin_of
from keras_adjoint.doctor.rules import CHECKERBOARD, SHIFTED, SIZE_LOST

pytestmark = pytest.mark.any_backend

# --- sizes


@pytest.mark.every_backend
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_size_that_does_not_come_back_is_found(rank):
    (finding,) = found(autoencoder(size=(45, 9, 7)[:rank]), SIZE_LOST)
    assert finding.place == "back" and not finding.fixable
    assert finding.figures == {
        "size": [45, 9, 7][:rank],
        "code": [23, 5, 4][:rank],
        "returned": [46, 10, 8][:rank],
    }


def test_so_is_one_that_is_cropped_away_afterwards():
    model = chain(
        (45, 45, 3),
        layers.Conv2D(5, 4, strides=2, padding="same", name="conv"),
        layers.Conv2DTranspose(3, 4, strides=2, padding="same", name="back"),
        layers.Cropping2D(((0, 1), (0, 1)), name="crop"),
    )
    (finding,) = found(model, SIZE_LOST)
    assert finding.place == "back" and "`crop`" in finding.effect and "45×45" in finding.fix


def test_and_one_behind_skips_pooling_and_residuals():
    x = keras.Input((22, 22, 3))
    y = layers.Conv2D(4, 3, padding="same")(x)
    down = layers.MaxPooling2D(name="pool")(y)
    branch = layers.Conv2D(6, 3, strides=2, padding="same", name="main")(down)
    bottom = layers.Add()([branch, layers.Conv2D(6, 1, strides=2, name="shortcut")(down)])
    up = layers.Conv2DTranspose(4, 2, strides=2, name="up")(bottom)
    model = keras.Model(x, layers.Conv2DTranspose(3, 2, strides=2, name="upper")(layers.CenterCrop(11, 11)(up)))
    (finding,) = found(model, SIZE_LOST)
    assert finding.place == "up" and finding.figures["size"] == [11, 11] and finding.figures["returned"] == [12, 12]


@pytest.mark.parametrize(
    "model",
    [
        lambda: autoencoder(size=(44, 44)),
        lambda: chain((7, 7, 8), layers.Conv2DTranspose(4, 4, strides=2, padding="same")),
        lambda: ka.autoencoder(chain((45, 45, 3), layers.Conv2D(5, 3, strides=2, padding="same"))),
        lambda: chain(
            (45, 45, 3),
            layers.Conv2D(5, 4, strides=2, padding="same"),
            layers.Conv2DTranspose(5, 4, strides=4, padding="same"),
        ),
        lambda: chain(
            (None, None, 3),
            layers.Conv2D(5, 4, strides=2, padding="same"),
            layers.Conv2DTranspose(5, 4, strides=2, padding="same"),
        ),
        lambda: chain(
            (45, 45, 3),
            layers.Conv2D(5, 4, strides=2, padding="same"),
            layers.Cropping2D(((0, 1), (0, 1))),
            layers.Conv2DTranspose(5, 4, strides=2, padding="same"),
        ),
    ],
    ids=["even", "generator", "mirror", "enlarging", "unknown", "cut in between"],
)
def test_other_sizes_break_no_rule(model):
    assert places(model(), SIZE_LOST) == []


def test_what_two_ways_lead_to_undoes_neither():
    large, small = keras.Input((45, 45, 3)), keras.Input((23, 23, 5))
    code = layers.Conv2D(5, 4, strides=2, padding="same")(large)
    joined = layers.Add()([code, small])
    model = keras.Model([large, small], layers.Conv2DTranspose(3, 4, strides=2, padding="same")(joined))
    assert places(model, SIZE_LOST) == []


# --- checkerboards


@pytest.mark.parametrize(
    ("taps", "strides"), [((3,), (2,)), ((4,), (2,)), ((5, 4), (3, 2)), ((1, 2), (2, 2)), ((3, 2, 4), (2, 2, 3))]
)
def test_coverage_counts_the_taps_that_reach_an_output(taps, strides):
    ones = np.ones((*taps, 1, 1), "float32")
    inputs = np.ones((1, *(9 for _ in taps), 1), "float32")
    written = ops.convert_to_numpy(ops.conv_transpose(inputs, ones, strides, "valid"))[0, ..., 0]
    inner = written[tuple(slice(2 * stride + n, -2 * stride - n) for n, stride in zip(taps, strides, strict=True))]
    covered = coverage(taps, strides, (1,) * len(taps))
    assert (covered.least, covered.most) == (inner.min(), inner.max())


def test_checkerboards_are_noted_with_their_figures():
    model = autoencoder(size=(8, 8), taps=3)
    (finding,) = found(model, CHECKERBOARD)
    assert finding.place == "back" and finding.severity == "note"
    assert finding.figures == {"least_taps": 1, "most_taps": 4, "ratio": 4.0}
    assert "4×4" in finding.fix
    assert places(autoencoder(size=(8, 8), taps=4), CHECKERBOARD) == []


def test_the_adjoint_of_such_a_convolution_has_the_same_checkerboard():
    model = ka.autoencoder(chain((9, 9, 3), layers.Conv2D(5, 3, strides=2, padding="same", name="conv")))
    (finding,) = found(model, CHECKERBOARD)
    assert finding.place == "conv_adjoint" and "its source `conv`" in finding.fix


def test_gaps_have_no_ratio():
    (finding,) = found(autoencoder(size=(8, 8), taps=1), CHECKERBOARD)
    assert finding.figures == {"least_taps": 0, "most_taps": 1, "ratio": None}


# --- old versions of Keras


def by_pytorch(x, layer):
    """What Keras before 3.15 had PyTorch compute with padding "same"; see keras-team/keras, pull request 22876."""
    (taps,), (stride,) = layer.kernel_size, layer.strides
    outward = stride - taps % 2 if layer.output_padding is None else layer.output_padding[0]
    padding = max(-((taps % 2 - taps + outward) // 2), 0)
    extra = 2 * padding + taps % 2 - taps + outward
    kernel = torch.tensor(ops.convert_to_numpy(layer.kernel).transpose(2, 1, 0).copy())
    y = torch.nn.functional.conv_transpose1d(torch.tensor(x.transpose(0, 2, 1)), kernel, None, stride, padding, extra)
    return y.numpy().transpose(0, 2, 1)


@pytest.mark.parametrize(
    ("taps", "strides", "output_padding"),
    [
        (taps, strides, output_padding)
        for taps, strides, output_padding in itertools.product([1, 2, 3, 4, 5, 6, 7], [2, 3, 4], [None, 0, 1])
        # TensorFlow has no such transposed convolution.
        if keras.backend.backend() != "tensorflow" or output_padding != 0 or taps % 2
    ],
)
def test_the_shift_is_that_of_pytorch(taps, strides, output_padding):
    layer = layers.Conv1DTranspose(
        3, taps, strides=strides, padding="same", output_padding=output_padding, use_bias=False, name="back"
    )
    model = trained(chain((9, 2), layer))
    findings = found(model, SHIFTED, Origin((3, 14, 0), "torch"))
    x = np.random.default_rng(0).normal(size=(1, 9, 2)).astype("float32")
    then, today = by_pytorch(x, layer), ops.convert_to_numpy(layer(x))
    assert bool(findings) == (not np.allclose(then, today, atol=1e-4))
    if findings:
        np.testing.assert_allclose(then[:, :-1], today[:, 1:], atol=1e-4)
        assert findings[0].figures["shift"] == [1] and findings[0].severity == "error"
        assert findings[0].figures["relative_change"] > 0.1


@pytest.mark.every_backend
def test_the_old_values_are_had_as_the_doctor_says():
    layer = layers.Conv2DTranspose(3, 3, strides=2, padding="same", use_bias=False, name="back")
    (finding,) = found(trained(chain((6, 5, 2), layer)), SHIFTED, Origin((3, 9, 2)))
    assert finding.severity == "note" and "Cropping2D(((1, 0), (1, 0)))" in finding.fix
    valid = layers.Conv2DTranspose(3, 3, strides=2, use_bias=False)
    valid.build((None, 6, 5, 2))
    valid.set_weights(layer.get_weights())
    x = np.random.default_rng(0).normal(size=(1, 6, 5, 2)).astype("float32")
    kernel = torch.tensor(ops.convert_to_numpy(layer.kernel).transpose(3, 2, 0, 1).copy())
    then = torch.nn.functional.conv_transpose2d(torch.tensor(x.transpose(0, 3, 1, 2)), kernel, None, 2, 1, 1)
    again = layers.Cropping2D(((1, 0), (1, 0)))(valid(x))
    np.testing.assert_allclose(then.numpy().transpose(0, 2, 3, 1), ops.convert_to_numpy(again), atol=1e-4)


@pytest.mark.parametrize(
    "origin",
    [Origin(), Origin((3, 15, 0)), Origin((2, 12, 0), "tensorflow"), Origin((3, 10, 0), "jax")],
    ids=lambda origin: f"{origin.version} {origin.backend}",
)
def test_other_origins_break_no_rule(origin):
    assert places(autoencoder(size=(8, 8), taps=3), SHIFTED, origin) == []


def test_even_crops_were_never_shifted():
    assert places(autoencoder(size=(8, 8), taps=4), SHIFTED, Origin((3, 10, 0))) == []


def test_files_say_where_they_come_from(tmp_path):
    model = autoencoder()
    model.save(tmp_path / "model.keras")
    assert origin_of(tmp_path / "model.keras").version == tuple(map(int, keras.__version__.split(".")[:3]))
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "3.4.1", "torch"
    assert origin_of(tmp_path / "model.h5") == Origin((3, 4, 1), "torch")
    (tmp_path / "none.h5").write_bytes(b"nothing")
    assert origin_of(tmp_path / "none.h5") == Origin()
