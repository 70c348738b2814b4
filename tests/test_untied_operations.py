"""Untied models of what has no converter of its own: automatic adjoints, and layers of this package that are no adjoints."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from keras import ops
from operators_of_models import right_or_refused
from random_graphs import graphs
from test_random_graphs import adjoint_or_none, assert_transposes
from untied import assert_stock

import keras_adjoint as ka
from keras_adjoint.stock.others import LARGEST_MATRIX

L = keras.layers


def differences():
    return L.Lambda(lambda x: x[:, 1:] - 2.0 * x[:, :-1] + 1.0, name="differences")


def of_one():
    x = keras.Input((4, 3))
    return keras.Model(x, differences()(x))


def at_every_step():
    x = keras.Input((2, 4, 3))
    return keras.Model(x, L.TimeDistributed(differences())(x))


def of_several():
    x, z = keras.Input((3,)), keras.Input((2, 3))
    both = L.Lambda(lambda both: {"sum": both[0] + both[1][:, 0], "parts": [both[1][:, ::2] - 1.0]}, name="both")(
        [x, z]
    )
    return keras.Model([x, z], [both["sum"], both["parts"][0]])


def of_an_operation():
    x = keras.Input((4, 3))
    return keras.Model(x, ops.tile(x, (1, 2, 1)))


def without_one_input():
    x, z = keras.Input((3,)), keras.Input((2, 4))
    return keras.Model([x, z], L.Dense(2)(x))


MODELS = {make.__name__: make for make in (of_one, at_every_step, of_several, of_an_operation, without_one_input)}


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_automatic_adjoints_become_products_with_their_matrix(make, depth):
    model = make()
    adjoint = ka.adjoint(model)
    forward, backward = (model, adjoint) if depth == 1 else (adjoint, ka.adjoint(adjoint))
    untied = ka.untie(backward)
    assert_stock(untied)
    assert_transposes(forward, untied)
    assert len(untied.trainable_weights) == len(model.trainable_weights[:1])  # a kernel, and no constant matrix


def test_means_by_a_mask_are_operations_in_stock_models(tmp_path):
    x = keras.Input((4, 3))
    autoencoder = ka.autoencoder(keras.Model(x, L.GlobalAveragePooling1D()(L.Masking()(x))))
    untied = ka.untie(autoencoder)
    assert_stock(untied)
    numbers = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    numbers[0, 1:] = 0.0
    untied.save(tmp_path / "untied.keras")
    for model in (untied, keras.saving.load_model(tmp_path / "untied.keras")):
        np.testing.assert_allclose(*(ops.convert_to_numpy(each(numbers)) for each in (model, autoencoder)), rtol=1e-6)


def test_what_would_be_too_large_or_forget_weights_is_refused():
    x = keras.Input((int(LARGEST_MATRIX**0.5) + 2, 1))
    with pytest.raises(
        ka.NoRuleError, match=r"`differences_adjoint` cannot .* a matrix of 1,025 × 1,026 numbers.*Received"
    ):
        ka.untie(ka.adjoint(keras.Model(x, differences()(x))))
    x = keras.Input((4, 3))
    model = keras.Model(x, L.SimpleRNN(2, activation=None, name="cell")(x))
    with pytest.raises(
        ka.NoRuleError, match=r"derived from the call of `cell`, whose weights .*register_rule.*Received"
    ):
        ka.untie(ka.adjoint(model))


def test_what_no_layer_of_keras_computes_is_refused():
    layer = ka.from_scipy(np.eye(3, 4), (4,), (3,))
    x = keras.Input((4,))
    with pytest.raises(ka.NoRuleError, match=r"cannot be converted into stock layers: it calls an operator of SciPy"):
        ka.untie(keras.Model(x, layer(x)))


@pytest.mark.in_turn("torch")
@settings(max_examples=30)
@given(graphs())
def test_adjoints_of_random_graphs_have_stock_layers_alone_or_are_refused(drawn):
    adjoint = adjoint_or_none(drawn)
    if adjoint is not None:
        with right_or_refused("cannot be converted into stock layers"):
            untied = ka.untie(adjoint)
            own = ka.adjoint.__module__.partition(".")[0]
            assert own not in {type(layer).__module__.partition(".")[0] for layer in untied._flatten_layers()}
            assert_transposes(drawn.model, untied)
