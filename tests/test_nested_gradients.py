"""The gradient of what holds exact autoencoders, whose layers depend on what they recorded, to any depth."""

import re

import keras
import numpy as np
import pytest
from autodiff import kernel_gradients
from encoders import X, assert_close, chain, values
from helpers import compiled, in_turn
from keras import ops
from layer_list import randomize
from test_whole_gradients import ALL, assert_is_gradient, gradient, random_weights

import keras_adjoint as ka

L = keras.layers


def around(autoencoder, shape, level=0):
    """A model with an autoencoder in it, beside its input."""
    x = keras.Input(shape)
    last = L.Dense(3, activation="tanh", name=f"around_{level}")
    model = keras.Model(x, last(L.Add(name=f"beside_{level}")([autoencoder(x), x])), name="outer")
    randomize(last)
    return model


class Weighted(L.Layer):
    """A layer that its mask, of numbers, scales."""

    def call(self, x, mask=None):
        return x * mask


STAGES = {
    "from the output": lambda y: L.Activation("tanh")(y),
    "from the input": lambda y: ops.softplus(y),
    "of a layer that ends in it": lambda y: L.Conv1D(4, 2, strides=2, activation="gelu")(y),
    "along an axis": lambda y: L.Softmax(axis=1)(y),
    "with a mask": lambda y: L.Softmax()(y, mask=ops.stop_gradient(y) > -1.0),
    "with weights": lambda y: L.PReLU("random_normal")(y),
    "a normalization": lambda y: L.LayerNormalization()(y),
    "a gate": lambda y: L.Multiply()([y, L.Dense(4, activation="sigmoid")(y)]),
    "maxima": lambda y: L.MaxPooling1D(2)(L.Activation("tanh")(y)),
    "the larger of two": lambda y: L.Maximum()([L.Activation("tanh")(y), 0.5 * y]),
    "at every step": lambda y: L.TimeDistributed(L.Dense(3, activation="silu"))(y),
    "an operation": lambda y: ops.power(ops.abs(y) + 1.0, 1.5),
    "attention": lambda y: L.MultiHeadAttention(1, 2)(y, y),
    "a mask of numbers": lambda y: Weighted()(y, mask=ops.sigmoid(y[..., :1])),
}


@pytest.mark.parametrize("name", in_turn(STAGES, always=["torch"]))
def test_two_deep(name):
    encoder = chain(L.Dense(4), STAGES[name], L.Dense(2), shape=(5, 3))
    given = X[:, :5, 0]
    autoencoder = assert_is_gradient(encoder, given)
    assert_is_gradient(autoencoder, given)
    assert_is_gradient(around(autoencoder, (5, 3)), given)


@pytest.mark.parametrize("name", ["of a layer that ends in it", "a normalization"])
def test_three_deep(name):
    model, given = chain(L.Dense(4), STAGES[name], L.Dense(2), shape=(5, 3)), X[:, :5, 0]
    for level in range(3):
        model = around(assert_is_gradient(model, given), (5, 3), level)


def everything():
    x = keras.Input((6, 3))
    y = L.Dense(4, activation="gelu")(x)
    y = L.LayerNormalization()(y + L.MultiHeadAttention(2, 3)(y, y))
    y = L.MaxPooling1D(2)(L.Multiply()([y, L.Dense(4, activation="tanh")(y)]))
    return random_weights(keras.Model(x, y, name="encoder"))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.any_backend
def test_files_copies_and_training_keep_it(tied, tmp_path):
    outer, given = around(ka.autoencoder(everything(), **ALL), (6, 3)), X[:, :6, 0]
    autoencoder = ka.autoencoder(outer, tied=tied, **ALL)
    autoencoder.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for model in (autoencoder, loaded, ka.clone_tied(autoencoder)):
        assert len(model.weights) == len(autoencoder.weights)
        assert_close(values(model(given, training=False)), gradient(outer, given))
    loaded.compile(keras.optimizers.SGD(1e-2), "mse")
    loaded.fit(given, given, verbose=0)
    autoencoder.set_weights(loaded.get_weights())
    assert_close(values(loaded(given)), values(autoencoder(given)))
    if tied:
        assert_close(values(loaded(given)), gradient(outer, given))


@pytest.mark.any_backend
def test_other_policies_take_what_was_recorded_as_given():
    dense, last, given = L.Dense(4, activation="tanh"), L.Dense(2), X[:, 0, 0]
    inner = ka.autoencoder(chain(dense, last, shape=(3,)), **ALL)
    slope = 1 - values(dense(given)) ** 2
    code = values(inner(given)) @ values(dense.kernel) * slope @ values(last.kernel)
    expected = code @ values(last.kernel).T @ values(dense.kernel).T
    assert_close(values(ka.autoencoder(inner, **{**ALL, "activation": "linear"})(given)), expected)


@pytest.mark.any_backend
def test_predicates_of_activations_are_not_asked_about_layers_that_move_values():
    inner = ka.autoencoder(chain(L.Dense(4, activation="tanh"), L.Dense(2), shape=(3,)), **ALL)
    layers = (L.Dense(4, activation="relu"), L.Reshape((2, 2)), L.Flatten(), L.Dense(3), inner)
    asked = []
    predicate = lambda layer: asked.append(layer) or True  # noqa: E731
    ka.autoencoder(chain(*layers, shape=(3,)), **{**ALL, "activation": {predicate: "gradient"}})
    assert asked and not any(isinstance(layer, (L.Reshape, L.Flatten)) for layer in asked)


# --- refusals


@pytest.mark.any_backend
def test_where_nothing_is_recorded_the_error_names_the_policies_of_the_gradient():
    encoder = around(ka.autoencoder(chain(L.Dense(4, activation="gelu"), shape=(3,)), **ALL), (3,))
    for make in (ka.adjoint, ka.mirror):
        model = ka.autoencoder(chain(L.Dense(4, activation="gelu"), shape=(3,)), **ALL)
        with pytest.raises(
            ka.NoRuleError, match=r"`encoder_autoencoder\w*/dense.*linear only at what the model recorded"
        ) as e:
            make(model)
        (policies,) = re.findall(r"autoencoder\(model, (.*?)\)", str(e.value))
        found = ka.autoencoder(encoder, **eval(f"dict({policies})"))
        assert_close(values(found(X[:, 0, 0])), gradient(encoder, X[:, 0, 0]))


@pytest.mark.any_backend
def test_guided_decoders_have_no_adjoint_and_the_hints_work():
    encoder = chain(L.Dense(12, activation="relu"), L.Dense(4), shape=(3,))
    guided, given = ka.autoencoder(encoder, **{**ALL, "activation": "guided"}), X[:, 0, 0]
    for make in (ka.adjoint, ka.mirror, lambda model: ka.autoencoder(model, **{**ALL, "activation": "guided"})):
        with pytest.raises(
            ka.NoRuleError, match=r"`encoder_autoencoder\w*/dense.*sets negative cotangents to zero"
        ) as error:
            make(guided)
        (hint,) = re.findall(r"activation=(\{.*?\})", str(error.value))
        ka.autoencoder(guided, **{**ALL, "activation": {**eval(hint), "default": "guided"}})
        found = ka.autoencoder(guided, **{**ALL, "activation": {**eval(hint), "default": "gradient"}})
        assert_close(values(found(given)), gradient(guided, given))
    assert_is_gradient(guided, given)
    ka.autoencoder(ka.autoencoder(encoder, **ALL), **{**ALL, "activation": "guided"})


# --- training with attention

FUSED = {
    "MultiHeadAttention": lambda dropout: L.MultiHeadAttention(2, 3, dropout=dropout, name="attention"),
    "GroupedQueryAttention": lambda dropout: L.GroupQueryAttention(2, 4, 2, dropout=dropout, name="attention"),
}


@pytest.mark.parametrize("name", in_turn(FUSED, always=["torch"]))
@pytest.mark.parametrize("options", [{}, {"use_causal_mask": True}], ids=["", "causal"])
def test_with_attention_it_is_trained(name, options):
    """With dropout Keras computes attention step by step, which has derivatives of every order."""

    def encoder(dropout):
        x = keras.Input((4, 3))
        return keras.Model(x, FUSED[name](dropout)(x, x, **options))

    fused, plain = encoder(0.0), encoder(0.5)
    plain.set_weights(random_weights(fused).get_weights())
    x = ops.convert_to_tensor(X[:, :4, 0])

    def weight_gradients(model):
        autoencoder = ka.autoencoder(model, **ALL)
        return kernel_gradients(lambda: ops.sum(autoencoder(x, training=False) ** 2), model.trainable_variables)

    found, expected = (np.concatenate([*map(np.ravel, weight_gradients(model))]) for model in (fused, plain))
    assert_close(found, expected)  # all together, as that of the keys' bias is zero


@pytest.mark.parametrize(
    "make", [L.Attention, L.AdditiveAttention, lambda: L.Attention(use_scale=True, score_mode="concat")]
)
@pytest.mark.any_backend
def test_other_attention_is_trained(make):
    x = keras.Input((4, 3))
    autoencoder = ka.autoencoder(keras.Model(x, make()([L.Dense(3)(x), x])), **ALL)
    autoencoder.compile(keras.optimizers.SGD(1e-3), "mse")
    before = autoencoder.get_weights()[0]
    assert np.isfinite(autoencoder.fit(X[:, :4, 0], X[:, :4, 0], verbose=0).history["loss"]).all()
    assert np.any(autoencoder.get_weights()[0] != before)


def test_compiled_in_one_piece():
    model = around(ka.autoencoder(everything(), **ALL), (6, 3))
    autoencoder = ka.autoencoder(model, **ALL)
    found = values(compiled(lambda x: autoencoder(x, training=False))(ops.convert_to_tensor(X[:, :6, 0])))
    assert_close(found, gradient(model, X[:, :6, 0]))
