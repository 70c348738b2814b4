"""`keras-adjoint inspect`: what it says of every layer is what the library does with that layer."""

import io
import json

import keras
import numpy as np
import pytest
from command_line import run, saved
from helpers import record_algorithms
from keras import layers, ops
from rich.console import Console

import keras_adjoint as ka
from keras_adjoint_cli.console import print_table

pytestmark = pytest.mark.any_backend


def encoder(size=(17, 14, 3)):
    """Nested, with fused activations, a gate, a branch, separable and depthwise kernels, and layers for most policies."""
    image = keras.Input(size, name="image")
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    stem = keras.Model(image, x, name="stem")
    photograph = keras.Input(size, name="photograph")
    x = stem(photograph)
    gate = layers.Dense(6, activation="sigmoid", name="squeeze")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply(name="excite")([x, gate])
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Add(name="join")([x, ops.relu(y)])
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.SeparableConv2D(4, 3, padding="same", dilation_rate=2, name="separable")(x)
    return keras.Model(photograph, x, name="encoder")


def inspected(model, folder, *options):
    result = run("inspect", saved(model, folder), "--json", *options)
    data = json.loads(result.stdout)
    assert result.exit_code == (0 if data["ok"] else 1)
    return data, {entry["layer"]: entry for entry in data["layers"]}


def test_every_layer_and_operation_has_a_line_in_the_order_of_the_calls(tmp_path):
    data, entries = inspected(encoder(), tmp_path)
    names = [name for name in entries if not name.startswith(("global", "relu"))]
    assert names == ["stem/conv", "stem/norm", "squeeze", "excite", "depthwise", "join", "pool", "separable"]
    assert len(entries) == len(data["layers"]) == 10
    assert data["ok"] and data["problem"] is None


def test_kernels_and_how_they_move(tmp_path):
    _, entries = inspected(encoder(), tmp_path)
    conv, separable = entries["stem/conv"], entries["separable"]
    assert conv["kernels"] == {"kernel": [3, 3, 3, 6]}
    assert (conv["strides"], conv["padding"], conv["groups"]) == ([2, 2], "same", 1)
    assert separable["kernels"] == {"depthwise_kernel": [3, 3, 6, 1], "pointwise_kernel": [1, 1, 6, 4]}
    assert separable["dilation"] == [2, 2]
    assert (conv["inputs"], conv["outputs"]) == ([[None, 17, 14, 3]], [[None, 9, 7, 6]])
    assert entries["excite"]["inputs"] == [[None, 9, 7, 6], [None, 1, 1, 6]]


def test_what_undoes_a_layer(tmp_path):
    _, entries = inspected(encoder(), tmp_path)
    found = {name: (entry["kind"], entry["adjoint"]) for name, entry in entries.items() if "_" not in name}
    found.pop("relu", None)
    assert found == {
        "stem/conv": ("linear_part", "AdjointConv"),
        "stem/norm": ("policy", "AdjointBatchNormalization"),
        "squeeze": ("unreached", "AdjointDense"),
        "excite": ("policy", None),
        "depthwise": ("exact", "AdjointDepthwiseConv"),
        "join": ("exact", "AdjointSum"),
        "pool": ("policy", "AdjointMaxPooling"),
        "separable": ("exact", "AdjointSeparableConv"),
    }
    assert entries["stem/conv"]["policies"] == {"activation": "same", "bias": "own"}
    assert entries["pool"]["policies"] == {"pooling": "spread"}


def test_parameters_are_those_of_a_mirror(tmp_path):
    """Own parameters are what an autoencoder has beyond its encoder; tied ones are the kernels that its decoder reads."""
    model = encoder()
    _, entries = inspected(model, tmp_path)
    own = sum(entry["own_parameters"] for entry in entries.values())
    assert own == ka.autoencoder(model).count_params() - model.count_params() > 0
    read = {name: sum(np.prod(shape) for shape in entry["kernels"].values()) for name, entry in entries.items()}
    for name, entry in entries.items():
        assert entry["tied_parameters"] == (read[name] if entry["kind"] in ("exact", "linear_part") else 0)


def shared_layer():
    image = keras.Input((9, 8, 3))
    conv = layers.Conv2D(3, 3, padding="same", name="conv")
    return keras.Model(image, conv(conv(image)))


def wrapped_layer():
    x = keras.Input((4, 5))
    return keras.Model(x, layers.TimeDistributed(layers.Dense(3, name="inner"), name="each")(x))


MODELS = {
    "encoder": encoder,
    "autoencoder": lambda: ka.autoencoder(encoder()),
    "autoencoder with the encoder's biases": lambda: ka.autoencoder(encoder(), bias="subtract"),
    "a layer called twice": shared_layer,
    "a layer in another": wrapped_layer,
}


@pytest.mark.parametrize("name", MODELS)
def test_sums_count_each_variable_once(name, tmp_path):
    model = MODELS[name]()
    data, entries = inspected(model, tmp_path)
    assert data["tied_parameters"] <= data["parameters"] == model.count_params()
    if data["ok"]:
        assert data["own_parameters"] == ka.autoencoder(model).count_params() - model.count_params()
    line = f"{data['parameters']:,} parameters, of which a mirror shares {data['tied_parameters']:,}"
    assert f"\n{line}" in run("inspect", tmp_path / "model.keras").stdout
    if name.startswith("autoencoder"):
        once, _ = inspected(encoder(), tmp_path)
        assert data["tied_parameters"] == once["tied_parameters"]  # of what undoes a tied layer the biases are no part


@pytest.mark.parametrize("batch", [1, 8])
def test_the_algorithms_are_those_that_run(batch, tmp_path, monkeypatch):
    model = encoder()
    _, entries = inspected(model, tmp_path, "--batch", batch)
    ran = record_algorithms(monkeypatch)
    for name in ("stem/conv", "depthwise", "separable"):
        inner = model.get_layer("stem").get_layer("conv") if name == "stem/conv" else model.get_layer(name)
        ran.clear()
        ka.adjoint(without_activation(inner))(np.zeros((batch, *inner.output.shape[1:]), "float32"))
        assert entries[name]["algorithms"] == ran, name
    assert entries["join"]["algorithms"] == []


def without_activation(layer):
    layer.activation = keras.activations.linear
    return layer


def test_an_adjoint_layer_is_listed_with_its_source_and_runs_its_own_algorithm(tmp_path):
    image = keras.Input((9, 8, 2))
    conv = layers.Conv2D(3, 3, strides=2, name="conv")
    features = conv(image)
    back = ka.adjoint(conv, bias="own", algorithm="native", name="back")
    _, entries = inspected(keras.Model(image, back(features)), tmp_path)
    assert (entries["back"]["adjoint"], entries["back"]["adjoint_of"]) == ("Conv2D", "conv")
    assert entries["back"]["kernels"] == {"kernel": [3, 3, 2, 3]}
    assert entries["back"]["algorithms"] == ["native"]
    assert entries["back"]["parameters"] == 2


def test_sizes_that_are_not_known(tmp_path):
    file = saved(encoder((None, None, 3)), tmp_path)
    result = run("inspect", file)
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if "stem/conv" in line]
    assert "?×?×3 → ?×?×6" in line and "AdjointConv" in line


def test_layers_without_rule_and_policy_are_shown_so(tmp_path):
    x = keras.Input((5, 3))
    model = keras.Model(x, layers.LSTM(2, name="second")(layers.LSTM(4, return_sequences=True, name="first")(x)))
    data, entries = inspected(model, tmp_path)
    assert not data["ok"]
    assert entries["first"]["kind"] == entries["second"]["kind"] == "neither"
    assert "neither an adjoint nor a policy" in entries["first"]["reason"]
    result = run("inspect", tmp_path / "model.keras")
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("neither")]
    assert line.startswith("neither LSTM (2 layers): ")


def test_layers_behind_one_without_a_rule_are_inspected_all_the_same(tmp_path):
    x = keras.Input((6, 3))
    y = layers.SimpleRNN(2, name="recurrent")(layers.Conv1D(3, 3, padding="same", name="conv")(x))
    _, entries = inspected(keras.Model(x, y), tmp_path)
    assert entries["recurrent"]["kind"] == "neither"
    assert entries["conv"]["kind"] == "exact"


def test_an_automatic_adjoint_is_named_so(tmp_path):
    x = keras.Input((6, 3))
    model = keras.Model(x, layers.CenterCrop(2, 1, name="crop")(layers.Reshape((6, 3, 1))(x)))
    data, entries = inspected(model, tmp_path)
    assert data["ok"] and (entries["crop"]["kind"], entries["crop"]["adjoint"]) == ("exact", "AutomaticAdjoint")


@keras.saving.register_keras_serializable(package="test_cli_inspect")
class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(3, name="dense")

    def call(self, x):
        return self.dense(x)


def test_a_model_without_a_graph_is_listed_and_cannot_be_mirrored(tmp_path):
    model = Subclassed()
    model(np.zeros((1, 4)))
    data, entries = inspected(model, tmp_path)
    assert "its `call` is its own" in data["problem"]
    assert entries["dense"]["adjoint"] == "AdjointDense"
    result = run("inspect", tmp_path / "model.keras")
    assert result.exit_code == 1 and "no mirror: " in result.stdout


def test_the_table_is_plain_outside_of_a_terminal_and_breaks_nothing(tmp_path):
    result = run("inspect", saved(encoder(), tmp_path))
    assert result.exit_code == 0
    assert "\x1b[" not in result.stdout
    lines = result.stdout.splitlines()
    for words in ("3×3×6×1, 1×1×6×4", "AdjointSeparableConv", "BatchNormalization", "activation=same, AdjointConv"):
        assert any(words in line for line in lines)
    assert any(line.startswith("10 layers: ") for line in lines)


def test_a_narrow_terminal_gets_fewer_columns_and_is_told_so():
    console = Console(file=io.StringIO(), force_terminal=True, width=20, color_system=None)
    rows = iter([("conv", "x" * 30, "12", "one two three four")])
    columns = ("name", "long", "count", "wordy")
    print_table(console, columns, rows, numbers=("count",), wrap=("wordy",), spare=("long", "count"))
    printed = " ".join(console.file.getvalue().split())
    assert "conv 12 one" in printed and "three" in printed and "xxx" not in printed
    assert "Left out for width: long." in printed


def test_a_terminal_that_would_cut_words_gets_lists():
    console = Console(file=io.StringIO(), force_terminal=True, width=30, color_system=None)
    rows = iter([("encoder/convolution", "28×28×1 → 14×14×8", "exact", "")])
    print_table(console, ("layer", "sizes", "undone", "by"), rows, wrap=("sizes",), spare=("by",))
    assert console.file.getvalue().split("\n") == [
        "layer encoder/convolution",
        "  sizes: 28×28×1 → 14×14×8",
        "  undone: exact",
        "",
    ]


def test_what_is_not_applied_is_not_said_to_be(tmp_path):
    """The activation of the code is not repeated, and the kernel of an adjoint is that of its source."""
    image = keras.Input((9, 8, 2))
    x = layers.Conv2D(3, 3, activation="relu", name="first")(image)
    code = layers.ReLU(name="code")(layers.Conv2D(2, 3, activation="relu", name="second")(x))
    encoder = keras.Model(image, code)
    data = json.loads(run("inspect", saved(encoder, tmp_path), "--json").stdout)
    policies = {layer["layer"]: (layer["policies"].get("activation"), layer["left_out"]) for layer in data["layers"]}
    assert policies == {"first": ("same", False), "second": ("same", False), "code": ("same", True)}
    alone = keras.Model(image, layers.Conv2D(2, 3, activation="relu", name="second")(x))
    data = json.loads(run("inspect", saved(alone, tmp_path), "--json").stdout)
    assert [layer["policies"].get("activation") for layer in data["layers"]] == ["same", None]
    text = run("inspect", saved(ka.autoencoder(alone), tmp_path)).stdout
    assert "as first" in text and "as second" in text
