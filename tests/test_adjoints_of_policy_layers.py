"""Layers that policies make are operators like any other: everything that speaks of their adjoints says the same."""

import keras
import numpy as np
import pytest
from encoders import values
from helpers import RARELY_JAX, in_turn
from layer_list import randomize

import keras_adjoint as ka
from keras_adjoint.layers.tied import Tied, exact_source
from keras_adjoint.models.decisions import decide
from keras_adjoint.models.facts import facts_about_layers
from keras_adjoint.models.graph import layers_of
from keras_adjoint.testing.model import check_layer

L = keras.layers

# What policies decide about, with the choices that put a layer of this package there, and the size of its input.
DECIDED = {
    "max pooling": (lambda: L.MaxPooling2D(2), "pooling", ("spread", "average", "switches"), (7, 6, 2)),
    "padded max pooling": (lambda: L.MaxPooling1D(3, 2, padding="same"), "pooling", ("spread", "average"), (8, 2)),
    "strided max pooling": (lambda: L.MaxPooling1D(2, 3), "pooling", ("spread", "average"), (9, 2)),
    "channels first": (
        lambda: L.MaxPooling1D(2, data_format="channels_first"),
        "pooling",
        ("spread",),
        (2, 7),
    ),
    "global max pooling": (lambda: L.GlobalMaxPooling2D(), "pooling", ("spread", "average", "switches"), (3, 4, 2)),
    "global average pooling": (lambda: L.GlobalAveragePooling1D(), "pooling", ("spread", "average"), (5, 2)),
    "adaptive max pooling": (lambda: L.AdaptiveMaxPooling1D(3), "pooling", ("spread",), (8, 2)),
    "batch normalisation": (lambda: L.BatchNormalization(), "norm", ("inverse", "adjoint", "scale"), (4, 3)),
    "layer normalisation": (lambda: L.LayerNormalization(), "norm", ("inverse", "adjoint", "scale"), (4, 3)),
    "rescaling": (lambda: L.Rescaling(0.5, offset=0.1), "preprocessing", ("undo", "adjoint"), (4, 3)),
    "activation": (lambda: L.ReLU(), "activation", ("gradient", "guided"), (4, 3)),
}
CASES = [(name, choice) for name, (_, _, choices, _) in DECIDED.items() for choice in choices]


def autoencoder_of(name, choice):
    make, policy, _, shape = DECIDED[name]
    if name.startswith("adaptive") and not hasattr(L, "AdaptiveMaxPooling1D"):
        pytest.skip("this Keras has no such layer")
    x, layer = keras.Input(shape), make()
    encoder = keras.Model(x, layer(x), name="encoder")
    randomize(layer)
    return ka.autoencoder(encoder, **{policy: choice})


def norm(operator):
    matrix = operator if isinstance(operator, np.ndarray) else operator.to_matrix()
    return np.linalg.norm(matrix.astype("float64"), 2)


def succeeds(function):
    """What a function gives, or `None` if it says that there is no such thing."""
    try:
        return function()
    except ka.NoRuleError:
        return None


@pytest.mark.parametrize(*("name, choice", in_turn(CASES, backends=lambda case: RARELY_JAX)))
def test_adjoint_check_operator_and_facts_agree(name, choice):
    model = autoencoder_of(name, choice)
    facts = {one.layer.rpartition("/")[2]: one for one in facts_about_layers(model, decide(model))}
    layers = [(path, layer) for path, layer in layers_of(model) if isinstance(layer, Tied)]
    assert layers
    for path, layer in layers:
        adjoint = succeeds(lambda layer=layer: ka.adjoint(layer))
        report = succeeds(lambda layer=layer: ka.check_adjoint(layer))
        checked = check_layer(path, layer)
        assert (adjoint is None) == (report is None) == (checked.verdict != "ok"), (adjoint, report, checked)
        about, source = facts[layer.name], exact_source(layer)
        assert about.adjoint_of == ("" if source is None else source.name)
        if report is None:
            continue
        assert report and checked.adjoint_of == about.adjoint_of
        if source is None:
            assert about.adjoint == checked.adjoint == type(adjoint).__name__
        if layer.needs_switches:
            continue
        check_operator(ka.operator(layer), adjoint)


def check_operator(operator, adjoint, *, close=1.0):
    """An operator has that adjoint, and a bound that is near its norm, or so many times that, and not below."""
    y = np.random.default_rng(0).standard_normal((1, *operator.out_space.shapes[0])).astype("float32")
    np.testing.assert_allclose(values(operator.T(y)), values(adjoint(y)), atol=1e-5)
    largest = norm(operator)
    assert largest <= float(values(operator.bound())) <= 1.3 * close * largest


OTHER_CHANNELS = {
    "convolution": (lambda: L.Conv2D(4, 3, padding="same"), (12, 12, 3)),
    "strided convolution": (lambda: L.Conv1D(4, 3, strides=2), (13, 3)),
    "dense": (lambda: L.Dense(4), (3,)),
}


@pytest.mark.parametrize(*("name", in_turn(OTHER_CHANNELS)))
def test_an_adjoint_with_other_channels_is_an_operator_of_its_own(name):
    make, shape = OTHER_CHANNELS[name]
    layer = make()
    layer(np.zeros((1, *shape), "float32"))
    randomize(layer)
    other = ka.adjoint(layer, channels=5)
    assert exact_source(other) is None
    other(np.zeros((1, *layer.compute_output_shape((1, *shape))[1:]), "float32"))
    adjoint = ka.adjoint(other)
    assert ka.check_adjoint(other) and ka.check_adjoint(other, adjoint)
    operator = ka.operator(other)
    check_operator(operator, adjoint, close=norm(ka.operator(layer)) * norm(values(other.channel_map)) / norm(operator))


def test_a_spread_of_real_size_has_a_bound():
    pool = L.MaxPooling2D(2)
    model = keras.Sequential([keras.Input((64, 64, 8)), pool])
    mirror = ka.mirror(model, pooling="spread")
    spread = next(layer for layer in mirror.layers if isinstance(layer, Tied))
    for operator in (ka.operator(spread), ka.operator(mirror)):
        assert float(values(operator.bound())) == pytest.approx(2, rel=1e-4)  # each number at 2 × 2 positions
