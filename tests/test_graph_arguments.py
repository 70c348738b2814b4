"""A call in a graph has its adjoint wherever its tensors stand: in several outputs, slices, keywords, lists, dictionaries."""

import keras
import numpy as np
import pytest
from helpers import in_turn
from keras import ops
from layer_list import randomize
from test_graph import matrices

import keras_adjoint as ka
from keras_adjoint.models.calls import Role
from keras_adjoint.models.graph import trace

L = keras.layers
S = np.s_
STEPS_BACK = pytest.mark.only_on("tensorflow", "jax")  # PyTorch has no slices with negative steps


def nested():
    """A model of two inputs, whose names are not in the order of the list."""
    first, second = keras.Input((4, 6), name="zz"), keras.Input((4, 6), name="aa")
    return keras.Model([first, second], L.Concatenate()([L.Dense(2)(first), L.Dense(3)(second)]), name="inner")


def nested_of_dictionaries():
    first, second = keras.Input((4, 6), name="zz"), keras.Input((4, 6), name="aa")
    return keras.Model({"zz": first, "aa": second}, {"u": L.Dense(2)(first), "b": L.Dense(3)(second)}, name="inner")


def flat():
    x = keras.Input((4, 1))
    return keras.Model(x, L.Dense(3)(x))


CASES = {
    "split": lambda x: ops.split(x, 3, axis=-1),
    "a part of a split": lambda x: ops.split(x, [1, 3], axis=1)[1:],
    "unstack": lambda x: ops.unstack(x, axis=2),
    "one of unstack": lambda x: ops.unstack(x, axis=1)[2],
    "stack": lambda x: ops.stack([x, 2 * x], axis=2),
    "concatenate with a constant": lambda x: ops.concatenate([x, 0 * x[:, :1] + 1.0, x[:, :2]], axis=1),
    "slice": lambda x: x[:, 1:3],
    "slice from behind": lambda x: x[:, -3:-1, 1:6:3],
    "empty slices": lambda x: ops.concatenate([x[:, 4:], x, x[:, 3:1], x[:, 5::2]], axis=1),
    "empty parts of a split": lambda x: ops.concatenate(ops.split(x, [0, 2, 2, 4], axis=1), axis=1),
    "index": lambda x: x[:, -1],
    "ellipsis, new axis and index": lambda x: x[..., None, 2],
    "new axis": lambda x: x[:, None],
    "flip": lambda x: ops.flip(x, axis=1),
    "swapaxes": lambda x: ops.swapaxes(x, 1, 2),
    "moveaxis": lambda x: ops.moveaxis(x, 1, -1),
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 3]], constant_values=2.0),
    "sum": lambda x: ops.sum(x, axis=1),
    "mean": lambda x: ops.mean(x, axis=(1, 2), keepdims=True),
    "expand_dims": lambda x: ops.expand_dims(x, -1),
    "squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 1)),
    "reshape": lambda x: ops.reshape(x, (-1, 24)),
    "broadcast": lambda x: x[:, :1] * np.ones((1, 5, 1)) + x[:, :, :1][:, 1:2],
    "operation by keyword": lambda x: ops.add(x1=x, x2=ops.multiply(x1=x, x2=2.0)),
    "layer by keyword": lambda x: L.Dense(3)(inputs=x),
    "nested by keyword": lambda x: nested()(inputs=[x, 2 * x]),
    "nested by names": lambda x: nested()({"zz": x, "aa": 2 * x}),
    "nested by names and keyword": lambda x: nested()(inputs={"aa": 2 * x, "zz": x}),
    "nested of dictionaries": lambda x: list(nested_of_dictionaries()({"zz": x, "aa": 2 * x}).values()),
}


def model_of(function, shape=(4, 6)):
    x = keras.Input(shape)
    model = keras.Model(x, function(x), name="net")
    for layer in model._flatten_layers(include_self=False):
        if layer.weights and not isinstance(layer, keras.Model):
            randomize(layer)
    return model


def check(model):
    a, b = matrices(model, ka.adjoint(model))
    assert np.abs(a).max() > 0
    np.testing.assert_allclose(b, a.T, rtol=0, atol=1e-5 * np.abs(a).max())
    return a


@pytest.fixture(autouse=True)
def double_precision():
    """The matrices are those of float64."""
    keras.config.set_floatx("float64")


@pytest.mark.parametrize("name", in_turn(CASES, always=["torch"]))
def test_the_adjoint_of_a_call_and_of_its_loaded_adjoint(name, tmp_path):
    model = model_of(CASES[name])
    a = check(model)
    ka.adjoint(model).save(tmp_path / "adjoint.keras")
    loaded = keras.saving.load_model(tmp_path / "adjoint.keras")
    again, _ = matrices(ka.adjoint(loaded), loaded)
    np.testing.assert_allclose(again, a, rtol=0, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("key", [S[:, ::-1], S[:, 1::2, ::-2], S[:, 3:0:-1]], ids=str)
@STEPS_BACK
def test_slices_that_go_backwards(key):
    check(model_of(lambda x: x[key]))


def test_slices_along_an_axis_of_unknown_size():
    model = model_of(lambda x: x[:, 1:-2], (None, 3))
    assert ka.check_adjoint(model, input_shape=(2, 7, 3))
    with pytest.raises(ka.SizeError, match=r"`net/get_item_1` reads 2 along an axis of unknown size.*keras\.Input"):
        ka.adjoint(model_of(lambda x: x[:, 2], (None, 3)))


def test_a_call_says_what_each_argument_is():
    x = keras.Input((5, 4))
    pooled = L.GlobalAveragePooling1D()(L.Masking()(x))
    calls = trace(keras.Model(x, ops.add(x1=pooled, x2=2.0), name="net")).calls
    masked, added = calls[-2:]
    assert [(each.name, each.role) for each in added.arguments] == [("x1", Role.DATA), ("x2", Role.CONSTANT)]
    assert [(each.name, each.role) for each in masked.arguments] == [("inputs", Role.DATA), ("mask", Role.RECORDED)]
    assert masked.inputs[0].shape == (None, 5, 4) and masked.recorded[0].dtype == "bool"


def test_activations_of_keras_are_activations_on_symbolic_tensors_too():
    x = keras.Input((4,))
    y = L.Dense(3)(x)
    for activation in (keras.activations.relu, ops.relu):
        decoder = ka.mirror(keras.Model(x, L.Dense(2)(activation(y))))
        assert decoder.output_shape == (None, 4)


def test_a_mirror_of_a_model_that_takes_a_dictionary_by_name_reconstructs_each_input():
    x, z = keras.Input((4, 6)), keras.Input((4, 6))
    encoder = keras.Model([x, z], nested()({"zz": x, "aa": z}))
    first, second = ka.autoencoder(encoder, bias="none")([np.ones((1, 4, 6)), np.zeros((1, 4, 6))])
    assert np.any(ops.convert_to_numpy(first)) and not np.any(ops.convert_to_numpy(second))


def test_a_nested_model_gets_the_last_axis_that_keras_adds_for_it():
    model = model_of(lambda x: flat()(x[:, :, 0]))  # in the graph, Keras forgets the axis
    assert model(np.ones((2, 4, 6))).shape == (2, 4, 3)
    assert ka.adjoint(model)(np.ones((2, 4, 3))).shape == (2, 4, 6)


def test_sizes_that_a_graph_was_made_with_are_kept():
    x = keras.Input((27, 2))
    conv, flatten, pool = L.Conv1D(2, 3, strides=2, padding="same"), L.Flatten(), L.GlobalAveragePooling1D()
    y = conv(x)
    decoder = ka.mirror(keras.Model(x, [flatten(y), pool(y)]))
    for layer, shape in ((conv, (1, 28, 2)), (flatten, (1, 7, 4)), (pool, (1, 9, 2))):
        layer(keras.Input(batch_shape=shape))
    assert decoder([np.ones((1, 28)), np.ones((1, 2))]).shape == (1, 27, 2)
