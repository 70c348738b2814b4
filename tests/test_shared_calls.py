"""A model whose file Keras could not load, since it calls one layer in two models, is refused when it is saved."""

import copy
import pickle
import random

import keras
import numpy as np
import pytest
from encoders import values

import keras_adjoint as ka
from keras_adjoint.layers import files

L = keras.layers
SIZE = 3
X = np.random.default_rng(0).normal(size=(2, SIZE)).astype("float32")
REFUSED = r"(?s)Keras would save this model, but could not load it: `\w+` is called in `\w+` and in `\w+`.*Received: "


def pair():
    """A layer and its adjoint."""
    dense = L.Dense(SIZE, name="dense")
    dense.build((None, SIZE))
    return dense, ka.adjoint(dense, bias="own", name="back")


def graph(*layers, name=None):
    x = y = keras.Input((SIZE,))
    for layer in layers:
        y = layer(y)
    return keras.Model(x, y, name=name)


def sequential(*layers, name=None):
    return keras.Sequential([keras.Input((SIZE,)), *layers], name=name)


def inside_and_after():
    dense, back = pair()
    return graph(graph(dense, back, name="nested"), dense, back)


def inside_and_before():
    dense, back = pair()
    return graph(dense, back, graph(dense, back, name="nested"))


def source_alone():
    dense, back = pair()
    return graph(graph(dense, name="nested"), dense, back)


def adjoint_alone():
    dense, back = pair()
    return graph(graph(back, name="nested"), dense, back)


def in_two_nested():
    dense, back = pair()
    return graph(graph(dense, back, name="one"), graph(back, dense, name="other"))


def in_a_sequential_and_outside():
    dense, back = pair()
    return graph(sequential(dense, back, name="nested"), dense, back)


def another_layer_with_weights():
    dense, back = pair()
    stock = L.Dense(SIZE, name="stock")
    return graph(graph(dense, stock, name="nested"), back, stock)


def a_nested_model_in_two():
    dense, back = pair()
    nested = graph(dense, back, name="nested")
    return graph(graph(nested, name="around"), nested)


def one_input():
    """What Keras loads without an error, and wrongly."""
    dense, back = pair()
    x = keras.Input((SIZE,))
    nested = keras.Model(x, dense(x), name="nested")
    return keras.Model(x, L.Add()([back(dense(2.0 * x)), nested(x)]))


BAD = [
    *(inside_and_after, inside_and_before, source_alone, adjoint_alone, in_two_nested, in_a_sequential_and_outside),
    *(another_layer_with_weights, a_nested_model_in_two, one_input),
]


@pytest.mark.parametrize("make", BAD)
def test_a_layer_that_is_called_in_two_models_of_a_file_is_named_when_it_is_saved(make, tmp_path):
    model = make()
    with pytest.raises(ka.TieError, match=REFUSED):
        model.save(tmp_path / "m.keras")
    for copied in (ka.clone_tied, copy.deepcopy, pickle.dumps):
        with pytest.raises(ka.TieError, match=REFUSED):
            copied(model)


def test_the_weights_of_a_model_that_cannot_be_saved_can(tmp_path):
    model, other = inside_and_after(), inside_and_after()
    model.save_weights(tmp_path / "m.weights.h5")
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_allclose(values(other(X)), values(model(X)), rtol=1e-5)


@pytest.mark.only_on("tensorflow")
def test_a_model_that_cannot_be_saved_is_exported(tmp_path):
    model = inside_and_after()
    model.export(tmp_path / "exported", verbose=False)
    import tensorflow as tf

    loaded = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(values(loaded.serve(X)), values(model(X)), rtol=1e-5, atol=1e-6)


def test_a_refusal_leaves_nothing_behind_for_the_next_file(tmp_path):
    dense, back = pair()
    nested = graph(dense, back, name="nested")
    model = graph(nested, dense)
    for _ in range(2):
        with pytest.raises(ka.TieError):
            model.save(tmp_path / "m.keras")
        nested.save(tmp_path / "n.keras")


class Trunk:
    """Random models: chains of layers and of models, in which both may come twice, on one branch or two."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.layers = [*pair(), L.Dense(SIZE, name="stock"), L.LeakyReLU(name="leaky"), L.Rescaling(1.5, name="scale")]
        self.models = 0

    def part(self, depth):
        if depth and self.random.random() < 0.5:
            return self.model(depth - 1)
        return self.random.choice(self.layers)

    def model(self, depth):
        parts = [self.part(depth) for _ in range(self.random.randint(1, 3))]
        self.models += 1
        name = f"model_{self.models}"
        if len({id(part) for part in parts}) == len(parts) and self.random.random() < 0.3:
            made = sequential(*parts, name=name)
        elif self.random.random() < 0.3:
            x = keras.Input((SIZE,))
            y = parts[0](x)
            first = keras.Model(x, y, name=f"{name}_first")
            made = keras.Model(x, L.Add(name=f"{name}_add")([first(x), y, *(part(y) for part in parts[1:])]), name=name)
        else:
            made = graph(*parts, name=name)
        if self.random.random() < 0.3:
            self.layers.append(made)
        return made


def is_loaded_rightly(model, path):
    """What becomes of a model in a file that is written without our check."""
    expected = values(model(X))
    model.save(path)
    try:
        loaded = keras.saving.load_model(path)
    except (ValueError, RuntimeError, KeyError, IndexError):
        return False
    return np.allclose(values(loaded(X)), expected, atol=1e-4) and len(loaded.weights) == len(model.weights)


def random_model(seed):
    trunk = Trunk(seed)
    dense, back = trunk.layers[:2]
    model = graph(trunk.model(2), L.Dense(SIZE), trunk.model(2), ka.adjoint(dense, name="last"), name="whole")
    for weight in model.weights:
        weight.assign(np.random.default_rng(seed).normal(size=weight.shape))
    return model


@pytest.mark.any_backend
def test_what_is_refused_is_what_keras_cannot_load(tmp_path, monkeypatch):
    compare(range(25), tmp_path, monkeypatch)


@pytest.mark.exhaustive
@pytest.mark.parametrize("start", range(100, 1100, 100))
def test_what_is_refused_is_what_keras_cannot_load_at_length(start, tmp_path, monkeypatch):
    compare(range(start, start + 100), tmp_path, monkeypatch)


def compare(seeds, tmp_path, monkeypatch):
    verdicts = []
    for seed in seeds:
        model = random_model(seed)
        try:
            model.save(tmp_path / "m.keras")
            taken = True
        except ka.TieError:
            taken = False
        with monkeypatch.context() as patch:
            patch.setattr(files, "check_file", lambda: None)
            verdicts.append((seed, taken, is_loaded_rightly(model, tmp_path / "n.keras")))
    assert [seed for seed, taken, right in verdicts if taken != right] == []
    assert {taken for _, taken, _ in verdicts} == {True, False}
