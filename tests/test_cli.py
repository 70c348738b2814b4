"""The command line: what it says of good, wrong and broken model files, and with which exit status."""

import json
import os
import sys

import keras
import numpy as np
import pytest
from command_line import complains, run, run_all_in_new_process, run_in_new_process, saved
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.layers.conv import AdjointConv
from keras_adjoint.layers.registry import REGISTERED_BY_USERS, RULES

pytestmark = pytest.mark.any_backend
WRONG_LAYER = """
import keras
from keras_adjoint.layers.conv import AdjointConv

@keras.saving.register_keras_serializable(package="wrong_layer")
class Swapped(AdjointConv):
    def apply_transpose(self, y, transpose):
        return transpose(y, keras.ops.swapaxes(self.read(), 0, 1))
"""


@keras.saving.register_keras_serializable(package="test_cli")
class SwappedAdjointConv(AdjointConv):
    """The mistake that articles make: H and W of the kernel swapped."""

    def apply_transpose(self, y, transpose):
        return transpose(y, ops.swapaxes(self.read(), 0, 1))


def autoencoder(back=lambda conv: ka.adjoint(conv, bias="own")):
    """A nested model with a fused activation, pooling, layers that have no adjoint, and a tied decoder with a bias."""
    image = keras.Input((9, 8, 2))
    conv = layers.Conv2D(3, 3, strides=2, padding="same", name="conv")
    features = conv(image)
    pooled = layers.MaxPooling2D(2, name="pool")(features)
    joined = layers.Add(name="join")([layers.LayerNormalization(name="norm")(pooled), pooled])
    joined = layers.AutoContrast(name="contrast")(joined)
    encoder = keras.Model(image, [features, joined], name="encoder")
    code = keras.Input(features.shape[1:])
    adjoint = back(conv)
    decoder = keras.Model(code, adjoint(code), name="decoder")
    whole = keras.Input((9, 8, 2))
    features, joined = encoder(whole)
    model = keras.Model(whole, [decoder(features), layers.Dense(4, activation="relu", name="dense")(joined)])
    for weight in model.trainable_weights:  # biases too
        weight.assign(np.random.default_rng(0).standard_normal(weight.shape))
    return model


# --- models that can be checked


@pytest.mark.every_backend
def test_every_layer_of_a_good_model_passes(tmp_path):
    result = run("check", saved(autoencoder(), tmp_path), "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["ok"] and data["backend"] == keras.backend.backend()
    verdicts = {layer["layer"]: layer["verdict"] for layer in data["layers"]}
    names = [layer["layer"] for layer in data["layers"]]
    assert len(names) == len(verdicts) == 7
    assert verdicts == {
        "encoder/conv": "ok",
        "encoder/pool": "ok",
        "encoder/norm": "not linear",
        "encoder/join": "ok",
        "encoder/contrast": "not linear",
        "decoder/conv_adjoint": "ok",
        "dense": "ok",
    }
    for layer in data["layers"]:
        if layer["verdict"] == "ok":
            assert 0 <= layer["residual"] <= layer["tolerance"]
    by_name = {layer["layer"]: layer for layer in data["layers"]}
    assert by_name["encoder/conv"]["adjoint"] == "AdjointConv"
    assert by_name["decoder/conv_adjoint"]["adjoint_of"] == "conv"
    assert [name for name, layer in by_name.items() if layer["linear_part"]] == ["dense"]
    assert by_name["encoder/conv"]["input_shape"][1:] == [9, 8, 2]


def test_the_table_has_a_line_per_layer_and_no_colours_outside_of_a_terminal(tmp_path):
    result = run("check", saved(autoencoder(), tmp_path))
    assert result.exit_code == 0
    for words in (
        "encoder/conv",
        "AdjointMaxPooling",
        "AdjointDense, linear part",
        "9×8×2",
        "not linear",
        "7 layers: 5 ok",
    ):
        assert words in result.stdout
    assert "\x1b[" not in result.stdout


def test_a_wrong_adjoint_fails_and_is_diagnosed(tmp_path):
    result = run("check", saved(autoencoder(SwappedAdjointConv), tmp_path))
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert "decoder/conv_adjoint" in line
    assert "H and W swapped" in line


def test_a_rule_that_fails_its_own_test_fails(tmp_path):
    @keras.saving.register_keras_serializable(package="test_cli")
    class Twice(layers.Layer):
        def call(self, x):
            return 2 * x

    @ka.register_rule(Twice)
    def half(source):
        return layers.Rescaling(0.5)

    try:
        result = run("check", saved(keras.Sequential([keras.Input((4,)), Twice(name="twice")]), tmp_path))
    finally:
        del RULES[Twice]
        REGISTERED_BY_USERS.remove(Twice)
    assert result.exit_code == 1
    assert "FAILED twice: The rule registered for `Twice` fails the adjoint test" in result.stdout


def test_layers_that_are_shared_or_wrapped_are_checked_once(tmp_path):
    dense = layers.Dense(5, name="dense")
    inputs = keras.Input((3, 5))
    each = layers.TimeDistributed(layers.Dense(2, name="inner"), name="each")
    model = keras.Model(inputs, each(dense(dense(inputs))))
    result = run("check", saved(model, tmp_path), "--json")
    verdicts = [(layer["layer"], layer["verdict"]) for layer in json.loads(result.stdout)["layers"]]
    assert verdicts == [("dense", "ok"), ("each", "ok"), ("each/inner", "ok")]


def test_an_odd_activation_is_not_taken_for_linear(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Activation("tanh")])
    result = run("check", saved(model, tmp_path), "--json")
    assert [layer["verdict"] for layer in json.loads(result.stdout)["layers"]] == ["not linear"]


def test_a_quantised_layer_is_linear_only_up_to_its_rounding(tmp_path):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="dense")])
    model.quantize("int8")
    result = run("check", saved(model, tmp_path), "--json")
    (found,) = json.loads(result.stdout)["layers"]
    assert found["verdict"] == "not linear" and "int8" in found["reason"]


@pytest.mark.parametrize("cell", [layers.GRUCell(3), layers.StackedRNNCells([layers.LSTMCell(2), layers.GRUCell(3)])])
def test_a_cell_is_as_linear_as_its_recurrent_layer(cell, tmp_path):
    model = keras.Sequential([keras.Input((5, 4)), layers.Dense(4), layers.RNN(cell)])
    data = json.loads(run("check", saved(model, tmp_path), "--json").stdout)
    assert {layer["verdict"] for layer in data["layers"] if layer["type"] != "Dense"} == {"not linear"}


def test_a_model_of_which_nothing_can_be_tested_does_not_pass(tmp_path):
    file = saved(keras.Sequential([keras.Input((5, 4)), layers.LSTM(3)]), tmp_path)
    result = run("check", file)
    assert result.exit_code == 1 and "None of them could be tested" in result.stdout
    assert not json.loads(run("check", file, "--json").stdout)["ok"]


# --- files that cannot


def test_a_missing_file(tmp_path):
    complains(run("check", tmp_path / "none.keras"), "There is no file")


def test_a_file_that_is_no_archive(tmp_path):
    file = tmp_path / "model.keras"
    file.write_text("kernels")
    complains(run("check", file), "is not a Keras model")


def test_a_truncated_file(tmp_path):
    file = saved(autoencoder(), tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    complains(run("check", file), "is not a whole Keras model")


def test_a_damaged_file(tmp_path):
    file = saved(autoencoder(), tmp_path)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    file.write_bytes(data)
    complains(run("check", file), "cannot be loaded")


def test_a_lambda_is_not_run(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: 2 * x)])
    complains(run("check", saved(model, tmp_path)), "Lambda")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["check"], "Missing argument 'MODEL.keras'. See keras-adjoint check --help."),
        (["check", "model.keras", "--jsn"], "No such option: --jsn"),
        (["chek", "model.keras"], "No such command 'chek'"),
        (["inspect", "model.keras", "--batch", "many"], "Invalid value for '--batch'"),
        (["mirror", "model.keras"], "Missing option"),
        (["deconv", "a.keras", "b.png", "--layer", "c", "-o", "d.png", "--range", "0"], "--range"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments, words):
    complains(run(*arguments), words)


def test_without_arguments_there_is_help():
    result = run()
    assert result.exit_code == 2 and "inspect" in result.stdout and result.stderr == ""


def test_debug_shows_where_an_error_comes_from(tmp_path):
    result = run("check", tmp_path / "none.keras", "--debug")
    assert "There is no file" in str(result.exception)


# --- the command as it is called


def test_custom_layers_come_from_modules(tmp_path):
    """A new process does not know the model's custom layer until it imports the module that registers it."""
    (tmp_path / "wrong_layer.py").write_text(WRONG_LAYER)
    exec(WRONG_LAYER, names := {"__name__": "wrong_layer"})
    conv = layers.Conv2D(2, 3, name="conv")
    image = keras.Input((6, 6, 2))
    features = conv(image)
    file = saved(keras.Model(image, names["Swapped"](conv, name="swapped")(features)), tmp_path)

    check = ["check", file, "--json"]
    options = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    unknown, found = run_all_in_new_process(check, [*check, "--import", "wrong_layer"], **options)
    complains(unknown, "Could not locate class 'Swapped'")
    assert "--import" in unknown.stderr
    assert found.exit_code == 1, found.stderr
    layers_found = json.loads(found.stdout)["layers"]
    assert [layer["verdict"] for layer in layers_found] == ["ok", "failed"]
    assert "H and W swapped" in layers_found[1]["reason"]


def test_version_and_help():
    assert run("--version").stdout == f"keras-adjoint {ka.__version__}\n"
    assert "keras-adjoint check model.keras --json" in run("check", "--help").stdout
    assert "keras-adjoint demo" in run("demo", "--help").stdout


def test_without_its_package_the_command_says_what_to_install():
    script = "import sys; sys.modules['typer'] = None; from keras_adjoint_cli import main; main()"
    result = run_in_new_process("-c", script)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith('pip install "keras-adjoint[cli]"')
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("missing", ["skimage", "matplotlib"])
def test_without_its_packages_the_demo_says_what_to_install(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    complains(run("demo"), 'pip install "keras-adjoint[demo]"')


def test_an_installed_backend_is_found_where_the_default_one_is_missing(tmp_path):
    script = "import sys; sys.modules['tensorflow'] = None; import keras_adjoint, keras; print(keras.backend.backend())"
    result = run_in_new_process("-c", script, without=["KERAS_BACKEND"], KERAS_HOME=str(tmp_path))
    assert result.stdout.split() == ["jax"], result.stderr
