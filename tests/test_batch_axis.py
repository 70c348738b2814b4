"""What moves samples, mixes them or makes others of them is refused, and the message says where."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_adjoint as ka

L = keras.layers

MIXING = {
    "concatenate layer": lambda x: L.Concatenate(axis=0, name="here")([x, x]),
    "concatenate": lambda x: ops.concatenate([x, x], axis=0),
    "stack": lambda x: ops.stack([x, x]),
    "reshape": lambda x: ops.reshape(x, (-1, 6)),
    "reshape of as many": lambda x: ops.reshape(x, (-1, 2, 6)),
    "transpose": lambda x: ops.transpose(x),
    "moveaxis": lambda x: ops.moveaxis(x, 0, 1),
    "swapaxes": lambda x: ops.swapaxes(x, 0, -1),
    "expand_dims": lambda x: ops.expand_dims(x, 0),
    "new axis": lambda x: x[None, :],
    "one sample": lambda x: x[0],
    "some samples": lambda x: x[1:, :],
    "flip": lambda x: ops.flip(x, axis=0),
    "flip of all axes": lambda x: ops.flip(x),
    "pad": lambda x: ops.pad(x, 1),
    "sum": lambda x: ops.sum(x, axis=0),
    "sum of all": lambda x: ops.sum(x),
    "mean": lambda x: ops.mean(x, axis=(0, 1)),
    "constant with more axes": lambda x: x * np.ones((5, 1, 4, 6)),
    "constant of several samples": lambda x: x * np.ones((5, 4, 6)),
    "sum with more axes": lambda x: x + np.ones((5, 1, 4, 6)),
    "tensor of fewer axes": lambda x: x[:, 0] + x,
}


@pytest.mark.parametrize("function", MIXING.values(), ids=MIXING)
def test_what_touches_the_batch_axis_is_refused_with_its_place(function):
    x = keras.Input((4, 6))
    model = keras.Model(x, function(L.Dense(6)(x)), name="net")
    for make in (ka.adjoint, ka.mirror):
        with pytest.raises(ka.NoRuleError, match=r"`net/.*sample by sample.*Received: \w+ of shapes"):
            make(model)


# What is no part of an adjoint anyway, but of a network that is certified.
MIXING_NONLINEAR = {
    "softmax": lambda x: ops.softmax(x, axis=0),
    "log_softmax": lambda x: ops.log_softmax(x, axis=0),
    "softmax layer": lambda x: L.Softmax(axis=0)(x),
    "softmax at every step": lambda x: L.TimeDistributed(L.Softmax(axis=0))(x),
    "max": lambda x: ops.max(x, axis=0, keepdims=True),
    "min of all": lambda x: ops.min(x, keepdims=True),
    "amax": lambda x: ops.amax(x, axis=-3),
    "maximum with one number of all": lambda x: ops.maximum(x, ops.max(x)),
    "minimum of several samples": lambda x: ops.minimum(x, np.ones((5, 4, 6), "float32")),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("function", (MIXING | MIXING_NONLINEAR).values(), ids=MIXING | MIXING_NONLINEAR)
def test_what_touches_the_batch_axis_has_no_lipschitz_constant(function):
    x = keras.Input((4, 6))
    certificate = ka.certify(keras.Model(x, function(L.Dense(6)(x)), name="net"))
    assert certificate.bound == float("inf")
    assert any("sample by sample" in call.reason for call in certificate.unknown)


FIXED = {
    "flip": ((2, 3), lambda x: ops.flip(x, 0)),
    "samples in one": ((4, 3), lambda x: ops.reshape(x, (1, 12))),
    "one in samples": ((1, 6), lambda x: ops.reshape(x, (3, 2))),
    "one squeezed": ((1, 3), ops.squeeze),
    "expanded": ((2, 3), lambda x: ops.expand_dims(x, 0)),
}


@pytest.mark.any_backend
@pytest.mark.parametrize(("shape", "function"), FIXED.values(), ids=FIXED)
def test_samples_of_known_number_are_kept_apart_as_well(shape, function):
    x = keras.Input(batch_shape=shape)
    model = keras.Model(x, function(x))
    assert ka.certify(model).bound == float("inf")
    with pytest.raises(ka.NoRuleError, match="sample by sample"):
        ka.operator(model)


@pytest.mark.any_backend
def test_samples_that_are_reshaped_one_by_one_are_not_mixed():
    x = keras.Input(batch_shape=(3, 4))
    assert ka.certify(keras.Model(x, ops.transpose(ops.reshape(x, (3, 2, 2)), (0, 2, 1)))).bound == 1


def test_what_gives_one_number_for_all_samples_has_no_adjoint():
    x = keras.Input((3,))
    with pytest.raises(ka.NoRuleError, match="sample by sample"):
        ka.operator(keras.Model(x, ops.maximum(x, ops.max(x))))


def test_one_sample_that_is_broadcast_is_refused():
    x = keras.Input(batch_shape=(1, 3))
    with pytest.raises(ka.NoRuleError, match=r"broadcasts the samples of a tensor of shape \(1, 3\) to shape \(5, 3\)"):
        ka.adjoint(keras.Model(x, x * np.ones((5, 3))))


def test_samples_of_known_number_may_be_scaled_one_by_one():
    x = keras.Input(batch_shape=(3, 2))
    factors = np.arange(6.0, dtype="float32").reshape(3, 2)
    adjoint = ka.adjoint(keras.Model(x, x * factors))
    np.testing.assert_allclose(ops.convert_to_numpy(adjoint(np.ones((3, 2)))), factors)


# --- axes that Keras announces in another order


@pytest.mark.any_backend
@pytest.mark.parametrize("make", [ka.adjoint, ka.mirror, ka.autoencoder])
def test_axes_that_keras_announces_in_reverse_are_refused_and_those_written_out_are_not(make):
    x = keras.Input((3, 4, 5))

    def model(equation, shape):
        layer = keras.layers.EinsumDense(equation, output_shape=shape)
        return keras.Model(x, keras.layers.Flatten()(layer(x)))

    with pytest.raises(ka.NoRuleError, match=r"`.*einsum_dense.*Keras announces.*'abcx,xy->abcy'.*Received: equation"):
        make(model("...x,xy->...y", 7))
    made = make(model("abcx,xy->abcy", (3, 4, 7)))
    assert made.output_shape == (None, 3, 4, 5)
    y = np.ones((2, *made.input_shape[1:]), "float32")
    assert tuple(made(y).shape) == (2, 3, 4, 5)
    y = keras.Input((4, 4, 5))  # in reverse the same
    assert make(keras.Model(y, keras.layers.EinsumDense("...x,xy->...y", 7)(y))).output_shape == (None, 4, 4, 5)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("equation", "output_shape", "shape"),
    [
        ("...x,xy->...y", 7, (5,)),
        ("...x,xy->...y", 7, (4, 5)),
        ("...x,xy->...y", 7, (3, 4, 5)),
        ("...x,xy->...y", 7, (2, 3, 4, 5)),
        ("...ab,bcd->...acd", (4, 3, 2), (6, 7, 4, 5)),
        ("ab...,bc->ac...", 3, (5, 4, 6)),
    ],
)
def test_the_adjoint_behind_its_source_announces_the_axes_that_it_gives(equation, output_shape, shape):
    layer, x = keras.layers.EinsumDense(equation, output_shape=output_shape), keras.Input(shape)
    y = keras.layers.Activation("relu")(layer(x))
    adjoint = ka.adjoint(layer)
    assert adjoint(y).shape == (None, *shape)
    computed = layer(np.ones((2, *shape), "float32"))
    assert tuple(adjoint(computed).shape) == (2, *shape)
    assert adjoint(keras.Input(computed.shape[1:])).shape == (None, *shape)
