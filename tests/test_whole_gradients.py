"""The backward pass of whole networks is their gradient: products, normalisations, and whatever else Keras differentiates."""

import keras
import numpy as np
import pytest
from autodiff import gradients
from encoders import EXACT, Cube, X, assert_close, chain, values
from helpers import compiled, in_turn
from keras import ops, tree
from layer_list import randomize

import keras_adjoint as ka

L = keras.layers
ALL = {**EXACT, "gates": "gradient"}


def gradient(encoder, x):
    """Jᵀ of an encoder at `x`, applied to its code."""
    (found,) = gradients(
        lambda x: sum(ops.sum(y**2) / 2 for y in tree.flatten(encoder(x, training=False)) if "float" in str(y.dtype)),
        [ops.convert_to_tensor(x)],
    )
    return found


def assert_is_gradient(encoder, x=X, run=compiled, **policies):
    autoencoder = ka.autoencoder(encoder, **{**ALL, **policies})
    expected = gradient(encoder, x)
    assert np.any(expected)
    assert_close(values(run(lambda x: autoencoder(x, training=False))(x)), expected)
    return autoencoder


def random_weights(model):
    for layer in model.layers:
        if layer.weights:
            randomize(layer)
    return model


def between(function, shape=(13, 11, 3)):
    """A network with a function between two linear layers."""
    return chain(L.Dense(4), function, L.Dense(2), shape=shape)


# --- products

SQUEEZE = {
    "as a layer": lambda y, gate: L.Multiply()([y, gate]),
    "as an operation": lambda y, gate: gate * y,
    "by division": lambda y, gate: y / (1.0 + gate),
    "of three factors": lambda y, gate: L.Multiply()([y, gate, y]),
    "by a convex combination": lambda y, gate: gate * y + (1.0 - gate) * ops.tanh(y),
}


@pytest.mark.parametrize("name", in_turn(SQUEEZE))
def test_squeeze_and_excitation(name):
    x = keras.Input((13, 11, 3))
    y = L.Conv2D(4, 3)(x)
    gate = L.GlobalAveragePooling2D(keepdims=True)(y)
    gate = L.Conv2D(4, 1, activation="sigmoid")(L.Conv2D(2, 1, activation="silu")(gate))
    assert_is_gradient(random_weights(keras.Model(x, L.Conv2D(2, 2)(SQUEEZE[name](y, gate)))))


def test_of_a_product_with_a_constant_and_of_a_gate_of_integers_nothing_is_lost():
    assert_is_gradient(between(lambda y: y * np.array([1.0, 2.0, 0.0, -1.0], "float32")))
    x = keras.Input((4,))
    encoder = random_weights(keras.Model(x, L.Dense(2)(L.Multiply()([L.Dense(4)(x), ops.cast(x > 0, "int32")]))))
    assert_is_gradient(encoder, X[:, 0, :4, 0])


# --- normalisations

NORMS = {
    "layer": lambda: L.LayerNormalization(),
    "layer, without scale": lambda: L.LayerNormalization(scale=False),
    "group": lambda: L.GroupNormalization(2),
    "root mean square": lambda: L.RMSNormalization(),
    "unit": lambda: L.UnitNormalization(),
    "batch": lambda: L.BatchNormalization(),
    "declared to be one": lambda: Cube(),
}


@pytest.mark.parametrize("name", in_turn(NORMS))
def test_every_normalisation(name):
    assert_is_gradient(between(NORMS[name]()), norm={"default": "adjoint", Cube: "adjoint"})


@pytest.mark.parametrize("name", ["layer", "group", "root mean square", "unit"])
@pytest.mark.any_backend
def test_a_norm_that_reads_its_input_has_no_adjoint_without_it(name):
    with pytest.raises(ValueError, match='undo a normalisation by "adjoint".*`norm="scale"`'):
        ka.mirror(between(NORMS[name]()), norm="adjoint")


# --- whatever else there is

FUNCTIONS = {
    "maximum with a constant": lambda y: ops.maximum(y, 0.1),
    "minimum with a constant before it": lambda y: ops.minimum(0.3, y),
    "clip": lambda y: ops.clip(y, -0.4, x_max=0.5),
    "maximum of two": lambda y: ops.maximum(y, ops.flip(y, 1)),
    "power": lambda y: ops.power(ops.abs(y) + 1.0, 1.5),
    "a norm along an axis": lambda y: y / ops.sqrt(ops.sum(y * y, axis=-1, keepdims=True)),
    "a maximum along an axis": lambda y: ops.max(y, axis=1),
    "where": lambda y: ops.where(y > 0, y * y, 0.1 * y),
    "sorted": lambda y: ops.sort(y, axis=1),
    "a matrix of itself": lambda y: ops.matmul(y, ops.transpose(y, (0, 1, 3, 2))),
    "einsum": lambda y: ops.einsum("bhwc,bhwd->bhcd", y, y),
    "one of several outputs": lambda y: ops.top_k(y, 2)[0],
    "a layer without a rule": Cube(),
    "a layer of two tensors": lambda y: L.Dot(axes=-1)([L.Flatten()(y), L.Flatten()(y * y)]),
    "a Lambda that is not linear": L.Lambda(lambda y: y * ops.mean(y, axis=1, keepdims=True)),
}


@pytest.mark.parametrize("name", in_turn(FUNCTIONS))
def test_functions(name):
    assert_is_gradient(between(FUNCTIONS[name]))


def recurrent(x):
    sequence, *states = L.LSTM(3, return_sequences=True, return_state=True)(x)
    return [sequence, states[1]]  # the first state is not read


def attention(x):
    y = L.MultiHeadAttention(2, 3)(L.LayerNormalization()(x), L.LayerNormalization()(x))
    return L.LayerNormalization()(x + y)


def masked_attention(x):
    y = L.Dense(4)(x)
    mask = ops.any(x != 0, axis=-1)
    return L.Attention()([y, L.Dense(4)(x)], mask=[mask, mask])


def masked_steps(value=0.0):
    return lambda x: L.Dense(2)(L.Masking(value)(x) + x * x)


SEQUENCES = {
    "masked steps": masked_steps(),
    "masked steps of another number": masked_steps(1.0),
    "masked steps at every step": lambda x: L.Dense(2)(L.TimeDistributed(L.Masking())(L.Reshape((3, 2, 4))(x))),
    "several outputs": recurrent,
    "attention": attention,
    "attention with a mask": masked_attention,
}


@pytest.mark.parametrize("name", in_turn(SEQUENCES))
def test_layers_for_sequences(name):
    x = keras.Input((6, 4))
    given = np.array(X[:, :6, :4, 0])
    given[:, 3:] = 1
    given[:, 4:] = 0
    assert_is_gradient(random_weights(keras.Model(x, SEQUENCES[name](x))), given)


def test_masks_that_attention_removes_from_its_tensors():
    ids = keras.Input((5,), dtype="int32")
    features = keras.Input((5, 4))
    y = L.Add()([L.Embedding(7, 4, mask_zero=True)(ids), features])
    encoder = random_weights(keras.Model([ids, features], L.MultiHeadAttention(2, 3)(y, y)))
    given, numbers = X[:, :5, :4, 0], np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]], "int32")
    numbers = ops.convert_to_tensor(numbers)
    (expected,) = gradients(lambda x: ops.sum(encoder([numbers, x]) ** 2) / 2, [ops.convert_to_tensor(given)])
    assert_close(values(ka.autoencoder(encoder, **ALL)([numbers, ops.convert_to_tensor(given)])[1]), expected)


# --- its life


@keras.saving.register_keras_serializable(package="test_whole_gradients")
class Noisy(L.Layer):
    """A layer that is not linear, and another one in training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = L.Dropout(0.9)

    def call(self, x):
        return x * self.dropout(x)


def everything():
    x = keras.Input((7, 4))
    y = L.Dense(4, activation="gelu")(x)
    y = L.LayerNormalization()(y + L.MultiHeadAttention(2, 3)(y, y))
    y = L.Multiply()([y, L.Dense(4, activation="sigmoid")(y)])
    return random_weights(keras.Model(x, ops.clip(L.LSTM(3, return_sequences=True)(y), -0.2, 0.3)))


@pytest.mark.in_turn("tensorflow", "torch")
def test_files_copies_and_compilers_keep_it(tmp_path):
    encoder, given = everything(), X[:, :7, :4, 0]
    autoencoder = ka.autoencoder(encoder, **ALL)
    autoencoder.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    expected = gradient(encoder, given)
    for model in (loaded, ka.clone_tied(autoencoder), ka.autoencoder(encoder, tied=False, **ALL)):
        assert_close(values(compiled(lambda x, m=model: m(x, training=False))(given)), expected)
    for layer in (loaded.get_layer("layer_normalization"), encoder.get_layer("layer_normalization")):
        layer.set_weights([2 * weight for weight in layer.get_weights()])
    assert_close(values(loaded(given, training=False)), gradient(encoder, given))


def test_in_training_it_is_that_of_inference():
    x = keras.Input((4,))
    encoder = keras.Model(x, Noisy(name="noisy")(x))
    gradient = ka.autoencoder(encoder, **ALL).get_layer("noisy_gradient")
    y, recorded = keras.Input((4,)), keras.Input((4,))
    model, given = keras.Model([y, recorded], gradient(y, [recorded])), np.ones((2, 4), "float32")
    assert_close(values(model([given, given], training=True)), 2 * given)


@pytest.mark.any_backend
def test_without_the_policy_nothing_is_a_gradient():
    encoder = between(lambda y: ops.power(ops.abs(y) + 1.0, 1.5))
    for activation in ("same", "linear", {"default": "same", "power": "gradient"}):
        with pytest.raises(ka.NoRuleError, match="it is not linear"):
            ka.autoencoder(encoder, **{**ALL, "activation": activation})
    ka.autoencoder(encoder, **{**ALL, "activation": {"default": "same", "power": "gradient", "absolute": "gradient"}})
