"""Tied models leave Keras: each format's own runtime computes the same, and the file holds a shared kernel once.

What Keras itself cannot export, be it a plain `Conv2DTranspose` or the encoder alone, is tried first and skipped.
"""

import sys
from pathlib import Path

import keras
import pytest

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

import keras_adjoint as ka
from benchmarks.export.formats import FORMATS, attempt, why_not
from benchmarks.export.models import KERNELS, MODELS, autoencoder, branches, convolutions, memory

WIDE = 192  # channels, so that kernels outweigh everything else in a file


@pytest.fixture(params=FORMATS, ids=lambda kind: kind.name)
def kind(request):
    if not request.param.is_installed:
        pytest.skip(f"`{request.param.runtime}` is not installed")
    reason = why_not(request.param)
    if reason:
        pytest.skip(
            f"Keras on {keras.backend.backend()} exports no plain Conv2DTranspose to {request.param.name}: {reason}"
        )
    return request.param


def exported(model, encoder, kind, **options):
    """What came of exporting a tied model; a skipped test if the encoder alone is already too much."""
    result = attempt(model, kind, **options)
    if not result.works and not attempt(encoder, kind).works:
        pytest.skip(f"Keras on {keras.backend.backend()} does not export the encoder to {kind.name}: {result.error}")
    return result


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=make.__name__, marks=() if make in (memory, branches) else pytest.mark.exhaustive)
        for make in MODELS
    ],
)
def test_exported_autoencoder_computes_the_same(kind, make):
    encoder, model = autoencoder(make)
    result = exported(model, encoder, kind)
    if "broadcast_merge_into" in result.error:
        pytest.xfail(
            f"OpenVINO infers wrong shapes in the whole model, though around none of its layers: {result.error}"
        )
    assert result.works, result.error
    assert result.difference < 1e-5


def test_exporting_is_not_needed_for_a_file_that_works(kind):
    encoder, model = autoencoder(convolutions)
    result = exported(model, encoder, kind, plainly=True)
    assert result.works, result.error
    assert result.difference < 1e-5


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        pytest.param(kind, layer, id=f"{kind.name}, {layer}")
        for kind in FORMATS
        for layer in KERNELS
        if layer in kind.shares
    ],
    indirect=["kind"],
)
def test_file_holds_a_shared_kernel_once(kind, layer):
    encoder, tied = autoencoder(KERNELS[layer], WIDE)
    _, untied = autoencoder(KERNELS[layer], WIDE, tied=False)
    alone, once, twice = (attempt(model, kind).size for model in (encoder, tied, untied))
    shared = 4 * (untied.count_params() - tied.count_params())
    assert once - alone < 0.3 * shared
    assert twice - alone > shared


def test_a_square_kernel_computes_the_same(kind):
    image = keras.Input((9, 8, 6))
    encoder = keras.Model(image, keras.layers.Conv2D(6, 3, strides=2, padding="same")(image))
    model = ka.autoencoder(encoder)
    result = exported(model, encoder, kind)
    assert result.works, result.error
    assert result.difference < 1e-5


def test_exporting_to_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="must be one of tf_saved_model, onnx.*Received: format='onxn'"):
        ka.exporting("onxn")
