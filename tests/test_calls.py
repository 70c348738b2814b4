"""Calls with more than tensors: constants among them, masks, options, training. Each is part of the operator, or refused."""

import keras
import numpy as np
import pytest
from helpers import in_turn
from keras import layers as L
from keras import ops
from operators_of_models import assert_adjoint_of, model_of, saved_and_loaded

import keras_adjoint as ka

PACKAGE = "test_calls"
CONSTANT = np.random.default_rng(0).normal(size=(1, 4, 2)).astype("float32")
STEPS = np.array([[True, False, True, True]])


def tensor(array):
    return ops.convert_to_tensor(array)


@keras.saving.register_keras_serializable(PACKAGE)
class Kept(L.Layer):
    """Multiplies by two the steps that a mask keeps, and by `factor` all."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None, factor=1.0):
        return factor * 2 * x if mask is None else factor * 2 * x * ops.cast(mask, x.dtype)[..., None]

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class Tripled(L.Layer):
    """Three times in training, once otherwise."""

    def call(self, x, training=False):
        return 3 * x if training else x


@keras.saving.register_keras_serializable(PACKAGE)
class Around(L.Layer):
    """Knows nothing of training, and holds a layer that does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Tripled()

    def call(self, x):
        return self.inner(x)


# Calls of layers, most of which have a rule, with constants on (batch, 4, 2).
WITH_CONSTANTS = {
    "average": lambda x: L.Average()([x, tensor(CONSTANT), x]),
    "add": lambda x: L.Add()([x, tensor(CONSTANT)]),
    "multiply": lambda x: L.Multiply()([x, tensor(CONSTANT)]),
    "mean by a mask": lambda x: L.GlobalAveragePooling1D()(x, mask=tensor(STEPS)),
    "mask": lambda x: Kept()(x, mask=tensor(STEPS)),
    "positional mask": lambda x: Kept()(x, tensor(STEPS), factor=3.0),
}


@pytest.mark.parametrize("name", in_turn(WITH_CONSTANTS, always=["torch"]))
def test_constants_are_a_part_of_the_operator(name, tmp_path):
    x = keras.Input((4, 2))
    model = model_of(x, WITH_CONSTANTS[name](x))
    samples = [np.random.default_rng(1).normal(size=(3, 4, 2)).astype("float32")]
    adjoint = ka.adjoint(model)
    assert_adjoint_of(adjoint, model, samples)
    loaded = saved_and_loaded(adjoint, tmp_path / "adjoint.keras")
    assert_adjoint_of(loaded, model, samples)
    assert_adjoint_of(adjoint, ka.adjoint(adjoint), samples)


@pytest.mark.parametrize("shift", [lambda x: ops.where(STEPS[..., None], x, 1.0), WITH_CONSTANTS["add"]])
def test_the_adjoint_of_an_adjoint_has_no_constant(shift):
    x = keras.Input((4, 2))
    model = keras.Model(x, shift(x))
    again = ka.adjoint(ka.adjoint(model))
    assert np.any(ops.convert_to_numpy(model(np.zeros((1, 4, 2), "float32"))))
    assert not np.any(ops.convert_to_numpy(again(np.zeros((1, 4, 2), "float32"))))


@pytest.mark.any_backend
def test_one_layer_with_several_constants_in_one_graph_and_outside():
    layer, x = L.Multiply(), keras.Input((4, 2))
    doubled, tripled = (layer([x, tensor(number * np.ones((1, 4, 2), "float32"))]) for number in (2, 3))
    model = keras.Model(x, [doubled, tripled])
    assert_adjoint_of(ka.adjoint(model), model, [np.ones((2, 4, 2), "float32")])
    with pytest.raises(ka.NoRuleError, match="several|different"):
        ka.adjoint(layer)(np.ones((1, 4, 2), "float32"))
    alone = L.Multiply()
    alone([x, tensor(CONSTANT)])
    np.testing.assert_allclose(ops.convert_to_numpy(ka.adjoint(alone)(CONSTANT)), CONSTANT**2, rtol=1e-6)
    average = L.Average()
    for other in (x, tensor(CONSTANT)):
        average([x, other])
    with pytest.raises(ka.NoRuleError, match="several operators.*Received: "):
        ka.adjoint(average)


# --- masks that the model computes


@pytest.mark.parametrize("make", [lambda m: ka.adjoint(m), lambda m: ka.autoencoder(m)], ids=["adjoint", "autoencoder"])
@pytest.mark.parametrize("around", [lambda: Kept(), lambda: L.TimeDistributed(Kept())], ids=["layer", "distributed"])
def test_a_mask_that_the_result_depends_on_is_refused(around, make):
    x = keras.Input((4, 3, 2) if isinstance(around(), L.TimeDistributed) else (4, 2))
    mask = keras.Input(x.shape[1:-1], dtype="bool")
    model = keras.Model([x, mask], around()(x, mask=mask))
    with pytest.raises(ka.NoRuleError, match="Received: ") as caught:
        make(model)
    assert model.name in str(caught.value)


@pytest.mark.any_backend
@pytest.mark.parametrize("layer", [Kept, L.GlobalAveragePooling1D, lambda: L.SimpleRNN(2, activation=None)])
def test_alone_a_layer_that_was_called_with_such_a_mask_is_refused(layer):
    layer = layer()
    layer(L.Masking()(keras.Input((4, 2))))
    with pytest.raises(ka.NoRuleError, match="mask.*Received: "):
        ka.adjoint(layer)
    plain = type(layer).from_config(layer.get_config())
    plain(keras.Input((4, 2)))
    assert isinstance(ka.adjoint(plain), L.Layer)


def test_a_mask_that_changes_nothing_is_left_out():
    masked, x = L.Masking(), keras.Input((4, 2))
    layer = L.Lambda(lambda x, mask=None: 2 * x)
    model = keras.Model(x, layer(masked(x)))
    assert_adjoint_of(ka.adjoint(model), model, [np.ones((2, 4, 2), "float32")])
    assert float(ops.sum(ka.adjoint(layer)(np.ones((1, 4, 2), "float32")))) == 16


# --- training


def in_a_model(layer):
    inner = keras.Sequential([keras.Input((4, 2)), layer])
    return lambda x, training: inner(x, training=training)


TRAINED = {
    "own": lambda: Tripled(),
    "inside of a layer": lambda: Around(),
    "dropout": lambda: L.Dropout(0.5),
    "normalisation": lambda: L.BatchNormalization(),
    "in a model": lambda: in_a_model(L.Dropout(0.5)),
    "in a model, own": lambda: in_a_model(Tripled()),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("name", TRAINED)
def test_a_call_that_a_model_makes_in_training_is_refused(name):
    x = keras.Input((4, 2))
    with pytest.raises(ka.NoRuleError, match="`training=True`.*Received: "):
        ka.adjoint(keras.Model(x, TRAINED[name]()(x, training=True)))
    model = keras.Model(x, TRAINED[name]()(x, training=False))
    assert_adjoint_of(ka.adjoint(model), model, [np.ones((2, 4, 2), "float32")])


@pytest.mark.any_backend
@pytest.mark.parametrize("layer", [lambda: L.Dense(3), lambda: L.RandomFlip(), lambda: in_a_model(L.Conv1D(3, 2))])
def test_training_that_changes_nothing_is_not(layer):
    x = keras.Input((4, 2))
    layer = layer()
    call = layer(x) if isinstance(layer, L.RandomFlip) else layer(x, training=True)
    model = keras.Model(x, call)
    assert_adjoint_of(ka.adjoint(model), model, [np.ones((2, 4, 2), "float32")])


# --- sizes that were not tested


def depends_on_size(x):
    return x if x.shape[1] != 5 else ops.abs(x)


@pytest.mark.parametrize("recorded", in_turn([None, 4]))
def test_linearity_is_tested_at_each_new_size(recorded):
    layer = L.Lambda(depends_on_size)
    layer(keras.Input((recorded,)))
    adjoint = ka.adjoint(layer)
    for size in (6, 6, 7):
        np.testing.assert_array_equal(ops.convert_to_numpy(adjoint(np.ones((1, size)), output_size=(size,))), 1)
    adjoint = ka.adjoint(layer)
    for y in (np.ones((1, 5), "float32"), np.ones((1, 5), "float32"), keras.Input((5,))):
        with pytest.raises(ka.NoRuleError, match=r"(?s)at this one it is not linear: of -1 · x.*Received: "):
            adjoint(y, output_size=(5,))


class Double(L.Layer):
    def call(self, x):
        return 2 * x


class Inside(L.Layer):
    def __init__(self):
        super().__init__()
        self.inner = L.Lambda(lambda x: 2 * x)

    def call(self, x):
        return self.inner(x)


def set_anew(layer, function):
    holder = getattr(layer, "inner", layer)
    setattr(holder, "function" if isinstance(holder, L.Lambda) else "call", function)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "make",
    [lambda: L.Lambda(lambda x: 2 * x), Inside, Double],
    ids=["function of a Lambda", "of one inside", "own call"],
)
def test_linearity_is_tested_again_once_a_function_of_the_source_is_set_anew(make):
    layer = make()
    layer(keras.Input((4,)))
    adjoint, y = ka.adjoint(layer), np.ones((2, 4), "float32")
    set_anew(layer, lambda x: 3 * x)
    np.testing.assert_array_equal(ops.convert_to_numpy(adjoint(y)), 3 * y)
    set_anew(layer, lambda x: x * x)
    for _ in range(2):
        with pytest.raises(ka.NoRuleError, match=r"(?s)set anew, and now it is not linear: of -1 · x.*Received: "):
            adjoint(y)
    set_anew(layer, lambda x: 4 * x)
    np.testing.assert_array_equal(ops.convert_to_numpy(adjoint(y)), 4 * y)


@pytest.mark.any_backend
def test_the_test_leaves_the_variables_as_they_were():
    layer = L.SimpleRNN(2, activation=None, stateful=True)
    layer(keras.Input(batch_shape=(3, 4, 2)))
    with pytest.raises(ka.NoRuleError, match="changes its own variables"):
        ka.adjoint(layer)
    assert all(not np.any(ops.convert_to_numpy(state)) for state in layer.states)
