"""`keras-adjoint spectrum`: the numbers are those of the operators, gaps have reasons, and sizes can be asked for."""

import json

import keras
import numpy as np
import pytest
from command_line import complains, run, saved
from keras import layers

import keras_adjoint as ka
from keras_adjoint.models.graph import trace
from keras_adjoint.operators import spectrum
from keras_adjoint.operators.call_constants import step_of
from keras_adjoint.operators.spectrum import LayerSpectrum
from keras_adjoint_cli.output.spectrum import gaps

pytestmark = pytest.mark.any_backend
L = layers


def network(size=(9, 8, 3)):
    """Nested, with activations, a layer of two sizes, and a layer that moves numbers alone."""
    shared = L.Conv2D(3, 3, padding="same", activation="tanh", name="shared")
    x = image = keras.Input(size, name="image")
    inner = keras.Sequential([keras.Input(size), L.Conv2D(3, 3, activation="relu", name="conv")], name="inner")
    x = L.Dropout(0.5)(shared(shared(x)))
    x = L.ZeroPadding2D(name="pad")(shared(inner(x)))
    x = L.BatchNormalization(name="norm")(x)
    return keras.Model(image, ka.Lipschitz(L.Dense(2, name="inside"), name="scaled")(L.Flatten()(x)), name="network")


def spectra(file, *options):
    result = run("spectrum", file, "--json", *options)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    return data, {(one["layer"], *one["inputs"][0][1:]): one for one in data["layers"]}


def test_the_numbers_are_those_of_the_operators(tmp_path):
    model = network()
    data, found = spectra(saved(model, tmp_path))
    names = [("shared", 9, 8, 3), ("inner/conv", 9, 8, 3), ("shared", 7, 6, 3), ("norm", 9, 8, 3), ("scaled", 216)]
    assert list(found) == names
    for name, layer in (("shared", model.get_layer("shared")), ("inner/conv", model.get_layer("inner").layers[0])):
        operator = ka.operator(layer, size=(9, 8, 3), linear_part=True)
        values = np.linalg.svd(operator.to_matrix(), compute_uv=False)
        one = found[name, 9, 8, 3]
        assert values[0] * (1 - 1e-3) <= one["norm"] <= values[0] * (1 + 1e-5) <= one["bound"] * (1 + 2e-5)
        assert one["condition"] == pytest.approx(values[0] / values[-1], rel=1e-2)
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        assert one["reshaped_norm"] == pytest.approx(np.linalg.norm(kernel.reshape(-1, 3), 2), rel=1e-4)
    assert found["scaled", 216]["norm"] <= found["scaled", 216]["bound"] <= 1 + 1e-5
    assert data["bound"] == pytest.approx(ka.certify(model).bound, rel=1e-6) and data["without_constant"] == []


def test_the_table_says_it_to_people(tmp_path):
    text = run("spectrum", saved(network(), tmp_path)).stdout
    lines = text.splitlines()
    assert any("inner/conv" in line and "9×8×3 → 7×6×3" in line for line in lines)
    assert "5 linear layers; the Lipschitz constant of the whole is at most " in lines[-1] and "–" in text


def test_one_layer_by_its_name_with_or_without_those_around_it(tmp_path):
    file = saved(network(), tmp_path)
    for name in ("inner/conv", "conv"):
        data, found = spectra(file, "--layer", name)
        assert list(found) == [("inner/conv", 9, 8, 3)] and data["bound"] is None and data["layer"] == name
    assert len(spectra(file, "--layer", "shared")[1]) == 2
    complains(run("spectrum", file, "--layer", "norms"), "no layer of the name norms, but norm")
    complains(run("spectrum", file, "--layer", "flatten_9"), "no layer of the name flatten_9")


def test_a_model_of_unknown_size_is_measured_at_the_size_that_is_asked_for(tmp_path):
    image = keras.Input((None, None, 2), name="image")
    x = L.LayerNormalization(name="norm")(L.Conv2D(3, 3, name="conv")(image))
    file = saved(keras.Model(image, x, name="any_size"), tmp_path)
    complains(run("spectrum", file), "Pass the shape without the batch axis, as in --size 32x32x2.")
    for size, expected in (("8", [None, 8, 8, 2]), ("8x9", [None, 8, 9, 2]), ("8x9x2", [None, 8, 9, 2])):
        data, found = spectra(file, "--size", size)
        assert [one["inputs"] for one in found.values()] == [[expected]] and data["size"] == size
    assert data["bound"] is None and [one["layer"] for one in data["without_constant"]] == ["norm"]
    text = run("spectrum", file, "--size", "8").stdout
    assert "no Lipschitz constant: norm (LayerNormalization): " in text and "the whole has no bound" in text
    complains(run("spectrum", file, "--size", "8x9x3"), "Received: --size ")
    complains(run("spectrum", file, "--size", "8", "--layer", "norm"), "norm, a LayerNormalization, is no linear layer")
    complains(run("spectrum", file, "--size", "99999"), "raise the limit: --limit memory=")


def test_what_is_not_computed_has_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(spectrum, "SMALL", 100)
    monkeypatch.setattr(spectrum, "LARGEST_SIDE", 2)
    file = saved(network(), tmp_path)
    for one in spectra(file)[1].values():
        assert one["condition"] is None and "its size to 100 numbers" in one["condition_reason"]
    assert spectra(file, "--layer", "conv")[0]["layers"][0]["reshaped_norm"] is None
    assert (
        "condition of shared and 4 others: not computed, as the matrix is too large: its smaller side is limited to 512"
        in run("spectrum", file).stdout
    )
    row = LayerSpectrum("conv", "Conv2D", [(None, 3)], [(None, 3)], reason="it is [odd]. Or even")
    assert list(gaps([row])) == ["[yellow]norm[/] of conv: it is \\[odd]."]


class Own(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_a_model_without_a_graph_is_refused(tmp_path):
    keras.saving.register_keras_serializable("tests")(Own)
    model = Own()
    model(np.zeros((1, 4)))
    complains(run("spectrum", saved(model, tmp_path)), "its `call` is its own")
    no_layer = keras.Sequential([keras.Input((4,)), L.ReLU(name="relu")])
    text = run("spectrum", saved(no_layer, tmp_path)).stdout
    assert text.strip() == "0 linear layers; the Lipschitz constant of the whole is at most 1"


def test_what_has_no_constant_is_named_beside_the_norms(tmp_path):
    words = keras.Input((4,), name="words")  # floats, of which the embedding makes integers
    vectors = L.Embedding(5, 2, name="embedding")(words)
    mixed = L.Dense(2, name="mixed")(keras.ops.flip(L.Flatten()(vectors), 0))
    data, found = spectra(saved(keras.Model(words, mixed, name="lookup"), tmp_path))
    assert list(found) == [("embedding", 4), ("mixed", 8)] and data["bound"] is None
    assert found["embedding", 4]["norm"] <= found["embedding", 4]["bound"]
    reasons = {one["layer"]: one["reason"] for one in data["without_constant"]}
    assert "looks up" in reasons.pop("embedding") and "axis 0" in reasons.pop("flip") and not reasons


def test_the_norm_of_a_layer_that_multiplies_each_number_needs_no_iteration(monkeypatch):
    x = keras.Input((20, 20, 4))
    layer = keras.layers.BatchNormalization()
    layer(x)
    layer.gamma.assign([1.0, -7.0, 2.0, 3.0])
    (found,) = spectrum.linear_layers({call: step_of(call) for call in trace(keras.Model(x, layer(x))).calls})
    monkeypatch.setattr("keras_adjoint.operators.matrix_like.norm_of", None)
    assert spectrum.spectrum_of(found).norm == pytest.approx(7 / 1.001**0.5, rel=1e-6)
