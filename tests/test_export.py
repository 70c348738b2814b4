"""Tied models leave Keras: each format's own runtime computes the same, and the file holds a shared kernel once.

`KERAS_EXPORTS` says which formats Keras itself writes on which backend; `make test-exhaustive` tries whether that still holds.
"""

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from extent import EXHAUSTIVE
from helpers import BACKEND, in_turn

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

import keras_adjoint as ka
from benchmarks.export.formats import FORMATS, attempt, why_not
from benchmarks.export.models import KERNELS, MODELS, autoencoder, branches, convolutions, memory, pooling

WIDE = 192  # channels, so that kernels outweigh everything else in a file


# The backends from which Keras exports a model with a transposed convolution.
KERAS_EXPORTS = {
    "tf_saved_model": ("tensorflow", "jax"),
    "onnx": ("tensorflow", "torch", *(["jax"] if find_spec("jax2onnx") else [])),
    "openvino": ("tensorflow", "torch"),
    "litert": ("tensorflow",),
    "torch": ("torch",),
}
# The encoders, of stock layers alone, that it does not export although it exports others.
NOT_EXPORTED = {("onnx", "tensorflow"): {branches}, ("onnx", "jax"): {pooling, memory, branches}}
# And the one whose file OpenVINO does not take, because it infers wrong shapes.
NOT_TAKEN = {("openvino", "tensorflow"): {branches}}


def in_formats(cases, name, kind_of=lambda case: case):
    """Parameters of a test of formats: each case runs on one of the backends from which Keras writes its format."""
    parameters = in_turn(cases, name, lambda case: KERAS_EXPORTS[kind_of(case).name])
    return [
        each
        for each, case in zip(parameters, cases, strict=True)
        if BACKEND in KERAS_EXPORTS[kind_of(case).name] and kind_of(case).is_installed
    ]


each_format = pytest.mark.parametrize("kind", in_formats(FORMATS, lambda kind: kind.name))


def autoencoders():
    """(format, encoder): in `make test` one encoder, on the backend whose turn the tests of `each_format` are not."""
    for number, kind in enumerate(FORMATS):
        backends = KERAS_EXPORTS[kind.name]
        if BACKEND not in backends or not kind.is_installed:
            continue
        if not EXHAUSTIVE and backends[(number + 1) % len(backends)] != BACKEND:
            continue
        fails = {make for table in (NOT_EXPORTED, NOT_TAKEN) for make in table.get((kind.name, BACKEND), ())}
        works = [make for make in MODELS if make not in fails]
        quick = [make for make in (memory, branches) if make in works] or works
        for make in works if EXHAUSTIVE else [quick[number % len(quick)]]:
            yield pytest.param(kind, make, id=f"{kind.name}, {make.__name__}")


@pytest.mark.parametrize(("kind", "make"), autoencoders())
def test_exported_autoencoder_computes_the_same(kind, make):
    _, model = autoencoder(make)
    result = attempt(model, kind)
    assert result.works, result.error
    assert result.difference < 1e-5


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_what_is_left_out_does_not_work_yet(kind):
    assert (why_not(kind) == "") == (BACKEND in KERAS_EXPORTS[kind.name])
    for make in NOT_EXPORTED.get((kind.name, BACKEND), ()):
        assert not attempt(make(), kind).works
    for make in NOT_TAKEN.get((kind.name, BACKEND), ()):
        assert "broadcast_merge_into" in attempt(autoencoder(make)[1], kind).error


@each_format
def test_exporting_is_not_needed_for_a_file_that_works(kind):
    _, model = autoencoder(convolutions)
    result = attempt(model, kind, plainly=True)
    assert result.works, result.error
    assert result.difference < 1e-5


@pytest.mark.parametrize(
    ("kind", "layer"),
    in_formats(
        [(kind, layer) for kind in FORMATS for layer in KERNELS if layer in kind.shares],
        lambda case: f"{case[0].name}, {case[1]}",
        lambda case: case[0],
    ),
)
def test_file_holds_a_shared_kernel_once(kind, layer):
    encoder, tied = autoencoder(KERNELS[layer], WIDE)
    _, untied = autoencoder(KERNELS[layer], WIDE, tied=False)
    alone, once, twice = (attempt(model, kind).size for model in (encoder, tied, untied))
    shared = 4 * (untied.count_params() - tied.count_params())
    assert once - alone < 0.3 * shared
    assert twice - alone > shared


@each_format
def test_a_square_kernel_computes_the_same(kind):
    image = keras.Input((9, 8, 6))
    encoder = keras.Model(image, keras.layers.Conv2D(6, 3, strides=2, padding="same")(image))
    result = attempt(ka.autoencoder(encoder), kind)
    assert result.works, result.error
    assert result.difference < 1e-5


def test_exporting_to_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match=r"must be one of .*, .onnx.*Did you mean .onnx.\? Received: format='onxn'"):
        ka.exporting("onxn")


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("policies", [{}, {"pooling": "switches", "norm": "adjoint"}], ids=["defaults", "switches"])
def test_a_trace_of_fixed_sizes_has_no_warning_from_here(policies):
    """A tracer makes tensors of sizes; what is fixed becomes an integer, and PyTorch need not say that it may not be."""
    import torch

    model = ka.autoencoder(of_many_layers(), **policies)
    x = torch.ones(2, 16, 15, 3)
    model(x)
    with ka.exporting("onnx"), warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        traced = torch.jit.trace(model.eval(), x, check_trace=False)
    ours = Path(ka.__file__).parent
    assert found and not [f"{one.filename}:{one.lineno}" for one in found if Path(one.filename).is_relative_to(ours)]
    np.testing.assert_allclose(traced(x).detach().numpy(), model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def of_many_layers():
    return keras.Sequential(
        [
            keras.Input((16, 15, 3)),
            keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.MaxPooling2D(),
            keras.layers.DepthwiseConv2D(3, padding="same"),
            keras.layers.SeparableConv2D(6, (3, 2), dilation_rate=2, padding="same"),
            keras.layers.Conv2D(4, 3, groups=2),
            keras.layers.UpSampling2D(2),
            keras.layers.AveragePooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
        ]
    )


def behind(layer, shape):
    """A model of the adjoint of a layer that takes inputs of a shape."""
    y = keras.Input(layer(keras.Input(shape)).shape[1:])
    return keras.Model(y, ka.adjoint(layer)(y))


@pytest.mark.only_on("torch")
@pytest.mark.parametrize(
    "layer, shape",
    [
        (keras.layers.SimpleRNN(3, activation="linear", return_sequences=True), (4, 5)),
        (keras.layers.Lambda(lambda x: x[:, 1:] - x[:, :-1]), (4, 5)),
    ],
)
def test_an_automatic_adjoint_is_written_by_torch_export(layer, shape, tmp_path):
    import torch

    model = behind(layer, shape)
    model.export(str(tmp_path / "m.pt2"), format="torch", verbose=False)
    given = np.random.default_rng(0).normal(size=(1, *model.inputs[0].shape[1:])).astype("float32")
    found = torch.export.load(tmp_path / "m.pt2").module()(torch.from_numpy(given))
    np.testing.assert_allclose(found.detach().numpy(), model.predict(given, verbose=0), rtol=1e-4, atol=1e-5)


@pytest.mark.only_on("torch")
def test_what_torch_export_cannot_record_is_refused_with_a_way_that_works(tmp_path):
    model, file = behind(keras.layers.Resizing(5, 4), (8, 8, 2)), str(tmp_path / "m.pt2")
    with pytest.raises(ka.KerasAdjointError, match=r"Export `keras_adjoint.untie\(model\)`"), ka.exporting("torch"):
        model.export(file, format="torch", verbose=False)
    ka.untie(model).export(file, format="torch", verbose=False)
