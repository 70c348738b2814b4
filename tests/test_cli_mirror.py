"""`keras-adjoint mirror`: the file that it writes, what it says about it, and that it never loses anything."""

import json

import keras
import numpy as np
import pytest
from command_line import complains, run, run_in_new_process, saved
from keras import layers

import keras_adjoint as ka
from keras_adjoint.layers.tied import Tied
from keras_adjoint_cli.actions import mirror as decoder
from keras_adjoint_cli.errors import in_options

pytestmark = pytest.mark.any_backend


def encoder():
    image = keras.Input((13, 10, 2), name="image")
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="first")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(5, 2, padding="same", name="second")(x)
    return keras.Model(image, x, name="encoder")


@pytest.fixture
def file(tmp_path):
    return saved(encoder(), tmp_path, "encoder.keras")


def mirrored(file, *options):
    """(what the command says, the model that it wrote)."""
    out = file.with_name("out.keras")
    result = run("mirror", file, "-o", out, "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), keras.saving.load_model(out)


def numbers(model, seed=0):
    x = np.random.default_rng(seed).normal(size=(2, *model.input_shape[1:])).astype("float32")
    return x, keras.ops.convert_to_numpy(model(x))


# --- what is written


def test_the_decoder_is_that_of_the_library(file):
    _, decoder = mirrored(file)
    code, found = numbers(decoder)
    expected = ka.mirror(keras.saving.load_model(file))(code)
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(expected), rtol=1e-5, atol=1e-6)
    assert [path.name for path in sorted(file.parent.iterdir())] == ["encoder.keras", "out.keras"]


@pytest.mark.every_backend
def test_the_way_to_load_the_file_has_its_path(file):
    out = file.with_name("out.keras")
    assert f"keras.saving.load_model({str(out)!r})" in run("mirror", file, "-o", out).stdout


def test_the_autoencoder_in_the_file_is_tied(file):
    data, model = mirrored(file, "--autoencoder", "--policy", "pooling=switches")
    assert ka.is_tied(model)
    loaded = keras.saving.load_model(file)
    kernels = sum(int(np.prod(loaded.get_layer(name).kernel.shape)) for name in ("first", "second"))
    assert data["parameters"] == model.count_params()
    assert (data["adjoint_layers"], data["tied_variables"], data["tied_parameters"]) == (2, 2, kernels)
    own = sum(layer["own_parameters"] for layer in data["layers"])
    assert data["parameters"] == loaded.count_params() + own


def test_an_untied_file_has_stock_layers_alone(file):
    data, model = mirrored(file, "--untie", "--autoencoder", "--policy", "norm=skip")
    assert data["adjoint_layers"] == 0
    assert not any(isinstance(layer, Tied) for layer in model._flatten_layers())
    x, found = numbers(model)
    expected = ka.autoencoder(keras.saving.load_model(file), norm="skip")(x)
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.every_backend
@pytest.mark.only_on("jax", "torch")
def test_keras_does_not_import_tensorflow_for_it(file):
    """It would, beside another backend, only to ask whether some value is one of TensorFlow's."""
    arguments = ["keras-adjoint", "mirror", str(file), "-o", str(file.with_name("out.keras"))]
    script = f"""
import sys
from keras_adjoint_cli import main
sys.argv = {arguments!r}
try:
    main()
finally:
    print("imported" if "tensorflow" in sys.modules else "spared")
"""
    result = run_in_new_process("-c", script, KERAS_BACKEND=keras.backend.backend())
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == "spared"


# --- policies and reasons


def test_policies_for_all_layers_for_one_and_for_a_class(file):
    options = ["--policy", "bias=average", "--policy", "bias:first=none", "--policy", "activation:Conv2D=tanh"]
    data, model = mirrored(file, *options, "--policy", "norm=inverse", "--policy", "output_activation=sigmoid")
    reasons = {layer["layer"]: layer["because"] for layer in data["layers"]}
    assert reasons["first"] == [
        "activation=tanh, by --policy activation:Conv2D=tanh",
        "bias=none, by --policy bias:first=none",
    ]
    assert reasons["second"] == ["bias=average, by --policy bias=average"]
    assert reasons["norm"] == ["norm=inverse, by --policy norm=inverse"]
    assert reasons["pool"] == ["pooling=spread, by default"]
    by = {layer["layer"]: layer["mirror_layers"] for layer in data["layers"]}
    assert by["norm"] == ["AdjointBatchNormalization"]
    assert model.get_layer("first_adjoint").bias_mode == "none"
    assert model.get_layer("second_adjoint").bias_mode == "average"
    assert model.layers[-1].activation is keras.activations.sigmoid


def test_the_summary_has_one_line_for_layers_that_are_undone_alike(tmp_path):
    model = keras.Sequential([keras.Input((6,)), *(layers.Dense(6, name=f"dense_{n}") for n in range(5))])
    file = saved(model, tmp_path)
    result = run("mirror", file, "-o", tmp_path / "out.keras")
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if "AdjointDense" in line]
    assert line.split()[:2] == ["5", "Dense"]
    assert "dense_0, dense_1, dense_2, …" in line and "its adjoint; bias=own, by default" in line
    assert "180" in line.split() and "30" in line.split()
    result = run("mirror", file, "-o", tmp_path / "out.keras", "--every-layer", "--force")
    assert sum("AdjointDense" in line for line in result.stdout.splitlines()) == 5


@pytest.mark.parametrize(
    ("policy", "answer"),
    [
        ("pool=spread", "The policies are called bias, activation, output_activation, norm, pooling"),
        ("pooling=max", '`pooling` must be one of "spread", "switches", "average"'),
        ("activation=rellu", "or any activation of Keras"),
        ("output_activation=rellu", "rellu"),
        ("bias:frist=none", "has no layer of the name or class frist, but first"),
        ("norm:BatchNormalisation=skip", "BatchNormalization"),
        ("output_activation:first=tanh", "one for the whole model"),
        ("pooling", "A policy is written KEY=VALUE"),
        ("pooling=", "A policy is written KEY=VALUE"),
        ("bias:=none", "A policy is written KEY=VALUE"),
    ],
)
def test_wrong_policies_are_answered_by_the_right_ones(policy, answer, file):
    complains(run("mirror", file, "-o", file.with_name("out.keras"), "--policy", policy), answer)
    assert not file.with_name("out.keras").exists()


def test_a_policy_that_needs_recorded_activations_asks_for_both_halves(file):
    result = run("mirror", file, "-o", file.with_name("out.keras"), "--policy", "pooling=switches")
    complains(result, "`mirror` builds one from the code alone")


def test_what_has_neither_adjoint_nor_policy_is_named(tmp_path):
    x = keras.Input((5, 3))
    file = saved(keras.Model(x, layers.LSTM(2, name="recurrent")(x)), tmp_path)
    complains(run("mirror", file, "-o", tmp_path / "out.keras"), "recurrent`, a `LSTM`, has neither an adjoint")


# --- nothing is lost


def test_the_encoder_is_never_overwritten(file):
    before = file.read_bytes()
    complains(run("mirror", file, "-o", file, "--force"), "is the input, which is never overwritten")
    link = file.with_name("link.keras")
    link.symlink_to(file)
    complains(run("mirror", file, "-o", link, "--force"), "is the input, which is never overwritten")
    assert file.read_bytes() == before


def test_another_file_is_overwritten_only_by_force(file):
    out = file.with_name("out.keras")
    out.write_text("precious")
    complains(run("mirror", file, "-o", out), "exists already")
    assert out.read_text() == "precious"
    assert run("mirror", file, "-o", out, "--force").exit_code == 0
    assert keras.saving.load_model(out).output_shape == (None, 13, 10, 2)


def test_a_file_that_does_not_load_tied_is_not_kept(file, monkeypatch):
    monkeypatch.setattr(decoder.ka, "is_tied", lambda model: False)
    out = file.with_name("out.keras")
    complains(run("mirror", file, "-o", out, "--autoencoder"), "is not tied", status=1)
    assert list(file.parent.iterdir()) == [file]


def test_an_interruption_leaves_one_line_and_no_file(file, monkeypatch):
    def interrupted(model, path):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save", interrupted)
    out = file.with_name("out.keras")
    out.write_text("precious")
    complains(run("mirror", file, "-o", out, "--force"), "interrupted", status=130)
    shown = run("mirror", file, "-o", out, "--force", "--debug")
    assert shown.exit_code == 130 and "Traceback" in shown.stderr and "interrupted; no file" in shown.stderr
    assert out.read_text() == "precious"
    assert sorted(path.name for path in file.parent.iterdir()) == ["encoder.keras", "out.keras"]


def test_the_progress_bar_stays_off_standard_output_and_away_without_a_terminal(tmp_path):
    model = keras.Sequential([keras.Input((4,)), *(layers.Dense(4) for _ in range(70))])
    result = run("mirror", saved(model, tmp_path), "-o", tmp_path / "out.keras", "--json")
    assert result.exit_code == 0 and result.stderr == ""
    assert json.loads(result.stdout)["adjoint_layers"] == 70


def test_advice_is_in_the_options_of_the_command(tmp_path):
    inputs = keras.Input((16, 16, 3))
    pooled = layers.MaxPooling2D(2)(layers.Conv2D(4, 3)(inputs))
    model = saved(keras.Model(inputs, pooled), tmp_path)
    command = ("mirror", model, "-o", tmp_path / "made.keras", "--policy")
    refused = run(*command, "pooling=switches")
    assert refused.exit_code == 2 and "keras_adjoint." not in refused.stderr
    assert "mirror --autoencoder" in refused.stderr and "--policy pooling=spread" in refused.stderr
    assert run(*command, "pooling=switches", "--autoencoder").exit_code == 0
    assert run(*command, "pooling=spread", "--force").exit_code == 0


@pytest.mark.parametrize(
    ("python", "options"),
    [
        (
            '`activation={"a b": "linear", "default": "same"}`',
            "`--policy 'activation:a b=linear' --policy activation=same`",
        ),
        ('`pooling="spread"`. Received: `norm="own"`', '`--policy pooling=spread`. Received: `norm="own"`'),
        ("`other={'a': 'linear'}` and `norm={Layer: 'own'}`", "`other={'a': 'linear'}` and `norm={Layer: 'own'}`"),
    ],
)
def test_arguments_of_python_become_options(python, options):
    assert in_options(python) == options
