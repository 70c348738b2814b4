"""Every adjoint with what makes no sense, as its input and as each of its options: one of our errors, which says what came."""

import datetime

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from layer_list import LAYERS, REPRESENTATIVES, for_each
from test_inputs import BAD as BAD_SIZES
from test_inputs import SIZED, made

import keras_adjoint as ka
from keras_adjoint.layers.adjoint import linear_adjoint
from keras_adjoint.layers.tied import Tied

NO_TENSORS = {
    "nothing": None,
    "number": 5,
    "fraction": 2.5,
    "boolean": True,
    "string": "abc",
    "bytes": b"abc",
    "object": object(),
    "function": len,
    "date": np.datetime64(datetime.date(2020, 1, 1)),
    "set": {1},
    "empty list": [],
    "empty dictionary": {},
    "numbers": [1.0, 2.0],
    "list of strings": ["a", "b"],
    "dictionary of numbers": {"a": 1.0},
    "array of strings": np.array(["a", "b"]),
    "array of objects": np.array([object(), None]),
}


def refused(call):
    with pytest.raises((ValueError, NotImplementedError), match="(?s)Received: ") as found:
        call()
    assert "keras_adjoint" in found.traceback[-1].path.as_posix()  # not one of Keras' own


@pytest.mark.any_backend
@for_each(LAYERS)
def test_what_is_no_tensor_is_refused_by_every_adjoint(case):
    layer, _, arguments = made(case)
    if isinstance(layer, Tied):
        for bad in NO_TENSORS.values():
            refused(lambda y=bad: layer(y, **arguments))


OTHERS = {
    "automatic": lambda: ka.adjoint(called(L.Lambda(lambda x: 2 * x), (3,))),
    "adjoint of an adjoint": lambda: ka.adjoint(linear_adjoint(called(L.Dense(4, activation="relu"), (3,)))),
    "adjoint of an automatic one": lambda: ka.adjoint(ka.adjoint(called(L.Lambda(lambda x: 2 * x + 1), (3,)))),
}


def called(layer, shape):
    layer(keras.Input(shape))
    return layer


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("bad", NO_TENSORS)
def test_what_is_no_tensor_is_refused_by_adjoints_without_a_rule(make, bad):
    refused(lambda: make()(NO_TENSORS[bad]))


@pytest.mark.parametrize("bad", NO_TENSORS)
def test_what_is_no_tensor_is_refused_by_name_too(bad):
    refused(lambda: linear_adjoint(called(L.Dense(4), (3,)))(y=NO_TENSORS[bad]))


BAD_OPTIONS = {
    "output_size": [*BAD_SIZES.values(), object(), [None, "a"], [[]], lambda: 1],
    "bias": ["some", "", 5, True, ["own"], None],
    "linear_part": ["no", 1, 0, None, [], np.array([True, False])],
    "channels": ["4", 2.5, 4.0, 0, -1, True, [4], (4,), np.array([4, 4]), {}, np.float32(4)],
    "channel_method": ["some", None, 5, ["pad"]],
    "algorithm": ["some", 5, ["native"], True],
    "tied": ["no", 1, 0, None, [], np.array([True, False])],
    "name": [5, "", "a/b", b"name", ["name"], object()],
}


@pytest.mark.any_backend
@pytest.mark.parametrize("option", BAD_OPTIONS)
@for_each(REPRESENTATIVES)
def test_options_that_make_no_sense_are_refused_for_every_layer(case, option):
    """Those that a layer does not take are refused as well."""
    source = case.build("float32")
    for value in BAD_OPTIONS[option]:
        if str(value) == "[[]]" and case.merges:  # one shape, of no axes
            continue
        with pytest.raises((ValueError, NotImplementedError), match="(?s)Received: "):
            ka.adjoint(source, **{option: value})


@pytest.mark.any_backend
@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_options_that_make_no_sense_are_refused_without_a_rule(option):
    source = called(L.Lambda(lambda x: 2 * x), (3, 2))
    for value in BAD_OPTIONS[option]:
        with pytest.raises((ValueError, NotImplementedError), match="(?s)Received: "):
            ka.adjoint(source, **{option: value})


# --- sizes of which some are tensors, or not known


def symbolic(y):
    return keras.KerasTensor(y.shape, dtype="float32")


@pytest.mark.parametrize("name", SIZED)
def test_tensors_and_numbers_in_one_size(name):
    source, y, size = SIZED[name]()
    for mixed in (
        [ops.convert_to_tensor(np.array(size[0])), size[1]],
        (np.int32(size[0]), ops.convert_to_tensor(size[1])),
    ):
        assert ka.adjoint(source)(y, output_size=mixed).shape[1:3] == size
        assert ka.adjoint(source)(symbolic(y), output_size=mixed).shape[1:3] == size
    x = keras.Input(y.shape[1:])
    model = keras.Model(x, ka.adjoint(source)(x, output_size=[ops.convert_to_tensor(size[0]), size[1]]))
    assert model.output_shape[1:3] == model(y).shape[1:3] == size


@pytest.mark.only_on("tensorflow")
def test_a_size_that_only_the_graph_knows_beside_a_number():
    import tensorflow as tf

    source, y, size = SIZED["conv"]()
    adjoint = ka.adjoint(source)
    adjoint(y, output_size=size)

    @tf.function(input_signature=[tf.TensorSpec((None, 3, 4, 2)), tf.TensorSpec((), "int32")])
    def run(y, rows):
        return adjoint(y, output_size=[rows, 7])

    np.testing.assert_allclose(run(y, 5), adjoint(y, output_size=size), rtol=1e-6)


@pytest.mark.parametrize("bad", [7.5, "a", [7], 5.0, True, {7}, len, np.float32(7)], ids=str)
@pytest.mark.parametrize("name", SIZED)
def test_what_is_no_size_beside_a_tensor_is_refused(name, bad):
    source, y, _ = SIZED[name]()
    five = ops.convert_to_tensor(np.array(5))
    for given in ([five, bad], (bad, five)):
        for tensor in (y, symbolic(y)):
            with pytest.raises(ka.SizeError, match="(?s)`output_size` .*Received: "):
                ka.adjoint(source)(tensor, output_size=given)


def test_sizes_that_are_all_left_open_say_nothing():
    source = called(L.Conv2D(2, 3, strides=2, padding="same"), (5, 8, 2))
    y = np.ones((1, 3, 4, 2), "float32")
    for size in ((None, None), [None, None], (None, 8), (5, None)):
        assert ka.adjoint(source)(y, output_size=size).shape == (1, 5, 8, 2)
        assert ka.adjoint(source, output_size=size)(y).shape == (1, 5, 8, 2)
        x = keras.Input((3, 4, 2))
        assert keras.Model(x, ka.adjoint(source)(x, output_size=size))(y).shape == (1, 5, 8, 2)
