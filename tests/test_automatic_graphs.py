"""Models in which adjoints by rule and automatic ones meet: layers, models and operations without a rule inside of graphs."""

import keras
import numpy as np
import pytest
from helpers import in_turn, matrices
from keras import layers as L
from keras import ops
from test_automatic import Composed, Differences, Halves, OwnDense, OwnModel, random

import keras_adjoint as ka
from keras_adjoint.layers.automatic import AutomaticAdjoint

W = np.random.default_rng(1).normal(size=(4, 5)).astype("float32")
KERNEL = np.random.default_rng(2).normal(size=(3, 4, 2)).astype("float32")
MASK = np.array([[True, False, True, True]] * 6)

# Operations of `keras.ops` on (batch, 6, 4), with constants and keyword arguments.
OPERATIONS = {
    "matmul": lambda x: ops.matmul(x, W),
    "matmul, constant first": lambda x: ops.matmul(W.T, ops.transpose(x, (0, 2, 1))),
    "dot": lambda x: ops.dot(x, W),
    "tensordot": lambda x: ops.tensordot(x, W, axes=[[2], [0]]),
    "einsum": lambda x: ops.einsum("btc,cd->bdt", x, W),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "diff": lambda x: ops.diff(x, axis=1),
    "roll": lambda x: ops.roll(x, 2, axis=1),
    "repeat": lambda x: ops.repeat(x, 2, axis=2),
    "tile": lambda x: ops.tile(x, (1, 2, 1)),
    "take": lambda x: ops.take(x, [0, 2, 2], axis=1),
    "where": lambda x: ops.where(MASK, x, 0.0),
    "tril": lambda x: ops.tril(x, k=1),
    "diagonal": lambda x: ops.diagonal(x, axis1=1, axis2=2),
    "trace": lambda x: ops.expand_dims(ops.trace(x, axis1=1, axis2=2), -1),
    "convolution": lambda x: ops.conv(x, KERNEL, strides=2, padding="same", data_format="channels_last"),
    "average pooling": lambda x: ops.average_pool(x, 2, strides=2, data_format="channels_last"),
    "resize": lambda x: ops.image.resize(ops.expand_dims(x, -1), (3, 8), data_format="channels_last"),
    "several outputs": lambda x: ops.concatenate(ops.rfft(x), axis=-1),
    "constants of its shape": lambda x: x * ops.cumsum(ops.ones_like(x), axis=1) / (1 + ops.full_like(x, 3.0)),
    "chosen by its shape": lambda x: ops.where(ops.cumsum(ops.ones_like(x), axis=1) > 2, x, ops.zeros_like(x)),
    "two tensors": lambda x: ops.hstack([x, ops.cumsum(x, axis=1)]),
}


def model_of(operation, shape=(6, 4)):
    """An operation between layers with rules."""
    inputs = keras.Input(shape)
    x = L.Dense(4, use_bias=False)(inputs)
    x = operation(x)
    outputs = L.Flatten()(x) if len(x.shape) > 2 else x
    return keras.Model(inputs, outputs)


def assert_transposed(model, adjoint):
    shapes = [tuple(t.shape[1:]) for t in (model.inputs[0], model.outputs[0])]
    a, b = matrices([(model, shapes[0]), (adjoint, shapes[1])], "float32")
    assert np.abs(a).max() > 0
    np.testing.assert_allclose(b, a.T, rtol=0, atol=2e-5 * np.abs(a).max())


@pytest.mark.parametrize("name", in_turn(OPERATIONS, always=["torch"]))
def test_an_operation_without_a_rule_is_transposed_with_its_constants(name):
    model = model_of(OPERATIONS[name])
    adjoint = ka.adjoint(model)
    assert_transposed(model, adjoint)


@pytest.mark.parametrize("name", in_turn(["matmul", "einsum", "take", "convolution", "several outputs", "cumsum"]))
def test_it_survives_a_file_tied(name, tmp_path):
    encoder = model_of(OPERATIONS[name])
    model = ka.autoencoder(encoder, bias="none")
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
    model.save(tmp_path / "m.keras")
    for other in (keras.saving.load_model(tmp_path / "m.keras"), ka.clone_tied(model)):
        np.testing.assert_allclose(other.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
        assert ka.is_tied(other)
    adjoint = ka.adjoint(encoder)
    adjoint.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    y = np.random.default_rng(1).normal(size=(2, *encoder.output_shape[1:])).astype("float32")
    np.testing.assert_allclose(loaded.predict(y, verbose=0), adjoint.predict(y, verbose=0), rtol=1e-4, atol=1e-5)


def test_layers_and_models_without_a_rule_meet_those_with_one():
    inputs = keras.Input((6, 3))
    x = L.Conv1D(4, 3, use_bias=False)(inputs)
    x = Differences()(x)
    x = OwnDense(5, use_bias=True)(L.Flatten()(x))
    x = OwnModel()(x)
    outputs = L.Lambda(lambda x: ops.cumsum(x, axis=1))(x)
    model = keras.Model(inputs, outputs)
    adjoint = ka.adjoint(model)
    kinds = [type(layer).__name__ for layer in adjoint.layers]
    assert kinds.count("AutomaticAdjoint") == 4 and "AdjointConv" in kinds
    assert ka.check_adjoint(model, adjoint)


def test_several_inputs_and_outputs_in_a_graph():
    x, z = keras.Input((3, 2)), keras.Input((3, 2))
    found = Halves()([x, z])
    model = keras.Model([x, z], L.Concatenate()([L.Flatten()(found["sum"]), found["flat"]]))
    assert ka.check_adjoint(model, ka.adjoint(model))


def test_a_model_is_mirrored_by_automatic_adjoints_at_its_unknown_size():
    encoder = keras.Sequential([keras.Input((None, 2)), Differences(), L.Conv1D(3, 3, activation="relu")])
    model = ka.autoencoder(encoder)
    assert tuple(model(random(2, 9, 2)).shape) == (2, 9, 2)
    assert any(isinstance(layer, AutomaticAdjoint) for layer in model.layers)


def test_training_reaches_the_weights_of_layers_without_a_rule():
    encoder = keras.Sequential([keras.Input((5,)), Composed()])
    model = ka.autoencoder(encoder)
    x = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")
    before = [ops.convert_to_numpy(weight) for weight in encoder.trainable_weights]
    model.compile(optimizer=keras.optimizers.SGD(1e-2), loss="mse")
    model.fit(x, x, epochs=2, verbose=0)
    kernels = [n for n, weight in enumerate(encoder.trainable_weights) if weight.name == "kernel"]
    for n in kernels:
        assert np.abs(ops.convert_to_numpy(encoder.trainable_weights[n]) - before[n]).max() > 0


REFUSED = {
    "exp": (ops.exp, "operation `Exp` at `.*` *: it has no rule, and it is not linear: of -1"),
    "clip": (lambda x: ops.clip(x, -1e3, 1e3), "not linear: of 1024"),
    "bilinear": (lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))), "not linear"),
    "condition": (lambda x: ops.where(x > 0, x, 0.0), "depends on other tensors|not linear"),
    "their number": (
        lambda x: x * ops.cumsum(ops.ones_like(x), axis=0),
        "product of two tensors is not linear in both",
    ),
    "over samples": (lambda x: ops.cumsum(x, axis=0), "works along axis 0"),
    "layer": (lambda x: L.LayerNormalization()(x), "not linear"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_linear_is_refused_with_its_place(name):
    operation, words = REFUSED[name]
    with pytest.raises(ka.NoRuleError, match=words) as caught:
        ka.adjoint(model_of(operation))
    assert "`functional" in str(caught.value) and "Received" in str(caught.value)


LOOPS = {
    "counted": lambda x: ops.fori_loop(0, 3, lambda _, z: 2 * z + x, ops.zeros_like(x)),
    "with a condition": lambda x: ops.while_loop(
        lambda z: True, lambda z: (2 * z + x,), (ops.zeros_like(x),), maximum_iterations=3
    )[0],
}


@pytest.mark.parametrize("name", LOOPS)
def test_functions_that_compute_with_a_symbolic_tensor_are_refused_with_their_place(name):
    with pytest.raises(
        ka.NoRuleError, match="a symbolic tensor of the model that is none of the function's arguments"
    ) as caught:
        ka.adjoint(model_of(LOOPS[name]))
    assert "`functional" in str(caught.value)


@keras.saving.register_keras_serializable(package="test_automatic_graphs")
class Weighted(L.Layer):
    """The first tensor times a constant, plus, if there is one, another."""

    def call(self, x, other=None, scale=1.0):
        return x * scale if other is None else x * scale + 2 * other


WIDE = np.ones(2000, "float32")
WIDE_TOO = np.where(np.arange(2000) == 1000, 7, WIDE).astype("float32")


@pytest.mark.parametrize(
    ("size", "connect"),
    {
        "one behind the other": (3, lambda s, x: s(s(x, scale=2.0), scale=3.0)),
        "beside each other": (3, lambda s, x: s(x, scale=2.0) + s(x, scale=5.0)),
        "of one tensor and of two": (3, lambda s, x: s(x, other=x, scale=3.0) + s(x)),
        "arrays that look alike": (2000, lambda s, x: s(x, scale=WIDE) + s(x, scale=WIDE_TOO)),
    }.values(),
)
def test_each_call_of_a_layer_is_undone_with_its_own_arguments(size, connect):
    x = keras.Input((size,))
    model = keras.Model(x, connect(Weighted(), x))
    ones = np.ones((1, size), "float32")
    diagonal = ops.convert_to_numpy(model(ones))  # every entry is multiplied by itself
    for backward in (ka.adjoint(model), ka.mirror(model, bias="none")):
        np.testing.assert_allclose(ops.convert_to_numpy(backward(ones)), diagonal, rtol=1e-6)


def test_a_layer_that_was_called_with_different_arguments_has_no_one_adjoint():
    layer, x = Weighted(), keras.Input((3,))
    layer(x, scale=2.0)
    layer(x, scale=5.0)
    with pytest.raises((ka.NoRuleError, ka.SizeError), match="Received: "):
        ka.adjoint(layer, output_size=(3,))(np.ones((1, 3)))


def test_a_layer_without_a_rule_behind_a_multiple_of_a_tensor_takes_its_adjoint_back():
    """Keras takes multiples of tensors by constants for sparse, and does not know what shape such a layer gives of these."""
    differences, y = Differences(), keras.Input((3, 4))
    differences.build((None, 4, 4))
    model = keras.Model(y, 0.5 * ka.adjoint(differences, output_size=(4, 4))(y))
    x = np.random.default_rng(0).normal(size=(2, 4, 4)).astype("float32")
    found, expected = (ops.convert_to_numpy(function(x)) for function in (ka.adjoint(model), differences))
    np.testing.assert_allclose(found, 0.5 * expected, rtol=1e-6)


def test_an_automatic_adjoint_drops_no_imaginary_part():
    double, x = L.Lambda(lambda x: 2 * x), keras.Input((3,))
    double(x)
    with pytest.raises(ValueError, match="real numbers"):
        ka.adjoint(double)(ops.convert_to_tensor(np.ones((1, 3), "complex64")))
