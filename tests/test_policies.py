"""Policies: what stands in the place of what has no adjoint."""

import keras
import numpy as np
import pytest
from encoders import Cube, X, assert_close, back, chain, features, values
from keras import ops
from layer_list import randomize

import keras_adjoint as ka
from keras_adjoint.layers.adjoint import linear_adjoint

L = keras.layers


# --- activations

RELU = L.Conv2D(4, 3, activation="relu", padding="same")


def two_stages(activation="tanh"):
    return chain(L.Conv2D(4, 3, padding="same"), L.Activation(activation), L.Conv2D(5, 3, padding="same"))


def through(encoder, code, function):
    """Back through `two_stages` with a function in the place of its activation."""
    first, _, second = encoder.layers[1:]
    return values(ka.adjoint(first)(function(ka.adjoint(second)(code))))


@pytest.mark.parametrize(
    "policy, function",
    [
        ("same", ops.tanh),
        ("linear", lambda y: y),
        ("deconvnet", ops.relu),
        ("sigmoid", ops.sigmoid),
        (keras.activations.elu, ops.elu),
        ({"default": "linear"}, lambda y: y),
        ({L.Activation: "relu"}, ops.relu),
        ({lambda layer: "activation" in layer.name: "softsign"}, ops.softsign),
        ({L.ReLU: "linear"}, ops.tanh),
    ],
)
def test_activation_in_the_mirrored_place(policy, function):
    encoder, code = two_stages("relu" if policy == "deconvnet" else "tanh"), features(13, 11, 5)
    assert_close(back(encoder, code, bias="none", activation=policy), through(encoder, code, function))


@pytest.mark.parametrize("guided", [False, True])
def test_activations_by_the_recorded_sign(guided):
    encoder = two_stages("relu")
    recorded = values(keras.Model(encoder.input, encoder.layers[2].output)(X))

    def function(y):
        return np.where(recorded > 0, np.maximum(values(y), 0) if guided else values(y), 0)

    found = values(ka.autoencoder(encoder, bias="none", activation="guided" if guided else "gradient")(X))
    assert_close(found, through(encoder, encoder(X), function))


@pytest.mark.parametrize("within", [True, False])
def test_the_code_does_not_pass_its_activation_twice(within):
    conv = L.Conv2D(4, 3, padding="same", activation="relu" if within else None)
    encoder = chain(conv, *([] if within else [L.Activation("relu")]), L.Flatten())
    code = features(13 * 11 * 4)
    expected = back(chain(L.Conv2D(4, 3, padding="same"), L.Flatten()), code)  # another kernel, same shape
    assert expected.shape == X.shape
    conv_back = values(linear_adjoint(conv)(code.reshape(2, 13, 11, 4)))
    assert_close(back(encoder, code, bias="none"), conv_back)
    rectified = np.maximum(code, 0).reshape(2, 13, 11, 4)
    conv_back = values(linear_adjoint(conv)(rectified))
    assert_close(back(encoder, code, bias="none", activation="deconvnet"), conv_back)


@pytest.mark.parametrize("layer", [L.LeakyReLU, L.ELU, L.PReLU, L.Softmax, lambda: L.ReLU(max_value=1.0)])
def test_every_kind_of_activation_layer_is_mirrored_by_its_like(layer):
    encoder = chain(L.Conv2D(4, 3, padding="same"), layer(), L.Conv2D(5, 3, padding="same"))
    mirrored = [type(layer) for layer in ka.mirror(encoder).layers]
    assert mirrored.count(type(encoder.layers[2])) == 1


def test_activations_written_as_operations_are_activations():
    x = keras.Input((13, 11, 3))
    first, second = L.Conv2D(4, 3, padding="same"), L.Conv2D(5, 3, padding="same")
    encoder = keras.Model(x, second(ops.tanh(first(x))))
    code = features(13, 11, 5)
    expected = values(ka.adjoint(first)(ops.tanh(ka.adjoint(second)(code))))
    assert_close(back(encoder, code, bias="none"), expected)
    assert_close(
        back(encoder, code, bias="none", activation="linear"), values(ka.adjoint(encoder_linear(first, second))(code))
    )


def encoder_linear(first, second):
    x = keras.Input((13, 11, 3))
    return keras.Model(x, second(first(x)))


def test_the_output_has_an_activation_of_its_own_before_preprocessing_is_undone():
    conv = L.Conv2D(4, 3, padding="same")
    encoder = chain(L.Rescaling(1 / 255.0, offset=-0.5), conv)
    code = features(13, 11, 4)
    expected = (values(ops.sigmoid(ka.adjoint(conv)(code))) + 0.5) * 255
    assert_close(back(encoder, code, bias="none", output_activation="sigmoid"), expected)


# --- normalisation and preprocessing

NORMS = [
    lambda: L.BatchNormalization(),
    lambda: L.LayerNormalization(),
    lambda: L.LayerNormalization(axis=[1, 2, 3]),
    lambda: L.GroupNormalization(2),
    lambda: L.RMSNormalization(),
    lambda: L.UnitNormalization(),
]


@pytest.mark.parametrize("make", NORMS)
def test_norm_policies(make):
    norm = make()
    encoder = chain(norm, shape=(4, 3, 4))
    code = features(4, 3, 4)
    gamma = getattr(norm, "gamma", None) if not isinstance(norm, L.RMSNormalization) else norm.scale
    gamma = 1.0 if gamma is None else values(gamma)
    beta = 0.0 if getattr(norm, "beta", None) is None else values(norm.beta)
    if isinstance(norm, L.BatchNormalization):
        deviation = np.sqrt(values(norm.moving_variance) + norm.epsilon)
        gamma, beta = gamma / deviation, beta - values(norm.moving_mean) * gamma / deviation
    assert_close(back(encoder, code, norm="scale"), code * gamma)
    assert_close(back(encoder, code, norm="inverse"), (code - beta) / gamma)
    assert_close(back(encoder, code, norm="skip"), code)
    (own,) = [layer for layer in ka.mirror(encoder).layers if type(layer) is type(norm)]
    assert own is not norm and own.trainable and [w.shape for w in own.weights] == [w.shape for w in norm.weights]


@pytest.mark.any_backend
def test_inverting_a_norm_twice_gives_back_what_went_in():
    encoder = chain(L.BatchNormalization())
    assert_close(back(encoder, encoder(X, training=False), norm="inverse"), X)


def test_channels_that_a_norm_switched_off_come_back_as_zeros():
    norm = L.BatchNormalization()
    encoder = chain(norm)
    norm.gamma.assign([1.0, 0.0, 2.0])
    found = back(encoder, encoder(X, training=False), norm="inverse")
    assert not np.any(found[..., 1])
    assert_close(found[..., [0, 2]], X[..., [0, 2]])


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "make",
    [
        lambda: L.Rescaling(1 / 127.5, offset=-1),
        lambda: L.Rescaling([1.0, 2.0, 4.0], offset=[0.0, 1.0, 2.0]),
        lambda: L.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 9.0, 16.0]),
    ],
)
def test_preprocessing_is_undone(make):
    encoder = chain(make())
    assert_close(back(encoder, encoder(X)), X)
    assert_close(back(encoder, X, preprocessing="skip"), X)
    assert_close(back(encoder, X, preprocessing="adjoint"), values(ka.adjoint(encoder.layers[1])(X)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: L.Normalization(mean=[90.0, 80.0, 0.0], variance=[9000.0, 8000.0, 0.0]),  # a pixel that is always black
        lambda: L.Normalization(mean=[1.0, 2.0, 0.0], variance=[1.0, 1e6, 1.0], dtype="mixed_bfloat16"),
        lambda: L.Normalization(mean=[0.0, 0.0, 0.0], variance=[1.0, 1e-14, 1e14], invert=True),
        lambda: L.Rescaling([1.0, 1e-9, 1e9]),
    ],
    ids=["constant", "mixed precision", "inverted", "rescaling"],
)
def test_channels_of_very_different_scales_are_all_undone(make):
    encoder = chain(make())
    half = encoder.layers[1].compute_dtype == "bfloat16"
    x = X * [1, 1, 0] if encoder.layers[1].name.startswith("normalization") else X  # what a constant feature is
    autoencoder = ka.autoencoder(encoder)
    for model in (autoencoder, ka.untie(autoencoder)):
        np.testing.assert_allclose(values(model(x)).astype("float32"), x, rtol=0, atol=0.05 if half else 5e-5)


def test_scales_of_a_norm_are_inverted_whatever_the_others_are():
    norm = L.BatchNormalization()
    encoder = chain(norm)
    norm.gamma.assign([1.0, 1e-8, 1e8])
    for shift in (norm.beta, norm.moving_mean):  # in a sum with which a small scale would be lost before
        shift.assign([0.0, 0.0, 0.0])
    assert_close(back(encoder, encoder(X, training=False), norm="inverse"), X)


# --- pooling


@pytest.mark.any_backend
@pytest.mark.parametrize("pool", [2, 3, (2, 3)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_what_was_spread_gives_back_the_maxima(pool, padding):
    layer = L.MaxPooling2D(pool, padding=padding)
    encoder = chain(layer)
    maxima = values(layer(X))
    spread = back(encoder, maxima)
    assert spread.shape == X.shape
    assert_close(values(layer(spread)), maxima)


def test_spreading_of_overlapping_windows_repeats_over_the_stride():
    encoder = chain(L.MaxPooling1D(3, 2, padding="same"), shape=(5, 1))
    assert back(encoder, np.array([[[1.0], [2.0], [3.0]]], "float32"))[0, :, 0].tolist() == [1, 2, 2, 3, 3]
    encoder = chain(L.MaxPooling1D(2, 3), shape=(7, 1))
    assert back(encoder, np.array([[[1.0], [2.0]]], "float32"))[0, :, 0].tolist() == [1, 1, 1, 2, 2, 2, 2]


@pytest.mark.any_backend
@pytest.mark.parametrize("size", range(1, 5))
@pytest.mark.parametrize("taps, stride", [(3, 1), (5, 1), (5, 2), (8, 1), (8, 3)])
def test_windows_larger_than_the_input_are_spread_as_the_formula_says(taps, stride, size):
    layer = L.MaxPooling1D(taps, stride, padding="same")
    encoder = chain(layer, shape=(size, 1))
    outputs = -(-size // stride)
    code = np.arange(1.0, outputs + 1, dtype="float32")
    before = max((outputs - 1) * stride + taps - size, 0) // 2 if stride > 1 else (taps - 1) // 2
    expected = [code[min((position + before) // stride, outputs - 1)] for position in range(size)]
    assert back(encoder, code[None, :, None])[0, :, 0].tolist() == expected


@pytest.mark.any_backend
def test_pooling_average_is_the_adjoint_of_average_pooling():
    encoder, averaging = chain(L.MaxPooling2D(3, 2, padding="same")), chain(L.AveragePooling2D(3, 2, padding="same"))
    code = features(7, 6, 3)
    assert_close(back(encoder, code, pooling="average"), values(ka.adjoint(averaging)(code)))


@pytest.mark.parametrize(
    "layer", [L.MaxPooling2D(3, 2, padding="same"), L.GlobalMaxPooling2D()], ids=["windows", "global"]
)
def test_pooling_switches_put_maxima_back_where_they_were(layer):
    found = values(ka.autoencoder(chain(layer), pooling="switches")(X))
    expected = values(ka.adjoint(layer)(layer(X), switches=ops.convert_to_tensor(X)))
    assert_close(found, expected)
    assert np.all((found == 0) | (X > 0) | (found == X))


@pytest.mark.parametrize(
    "layer", [L.GlobalMaxPooling2D(), L.GlobalAveragePooling2D(), L.GlobalAveragePooling2D(keepdims=True)]
)
def test_global_pools_are_broadcast(layer):
    encoder = chain(layer)
    code = values(encoder(X))
    broadcast = np.broadcast_to(code.reshape(2, 1, 1, 3), X.shape)
    assert_close(back(encoder, code), broadcast)
    assert_close(back(encoder, code, pooling="average"), broadcast / (13 * 11))


# --- gates, dropout, biases


def gated(swapped=False, written_as="layer"):
    x = keras.Input((13, 11, 3))
    conv = L.Conv2D(4, 3, padding="same")
    y = conv(x)
    gate = L.Reshape((1, 1, 4))(L.Dense(4, activation="sigmoid")(L.GlobalAveragePooling2D()(y)))
    factors = [gate, y] if swapped else [y, gate]
    product = L.Multiply()(factors) if written_as == "layer" else factors[0] * factors[1]
    encoder = keras.Model(x, product)
    for layer in encoder.layers:
        if layer.weights:
            randomize(layer)
    return encoder, conv, keras.Model(x, gate)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("written_as", ["layer", "operation"])
def test_gate_policies(swapped, written_as):
    encoder, conv, gate = gated(swapped, written_as)
    code = encoder(X)
    assert_close(back(encoder, code, bias="none"), values(ka.adjoint(conv)(code)))
    found = values(ka.autoencoder(encoder, bias="none", gates="recorded")(X))
    assert_close(found, values(ka.adjoint(conv)(code * gate(X))))


@pytest.mark.parametrize("swapped", [False, True])
def test_of_factors_of_one_size_the_squeezed_one_is_the_gate(swapped):
    x = keras.Input((13, 11, 3))
    conv, gate = L.Conv2D(4, 3, padding="same"), L.Conv2D(4, 1, activation="sigmoid")
    encoder = keras.Model(x, L.Multiply()([gate(x), conv(x)] if swapped else [conv(x), gate(x)]))
    code = features(13, 11, 4)
    assert_close(back(encoder, code, bias="none"), values(ka.adjoint(conv)(code)))


def test_dropout_is_dropped_or_kept():
    encoder = chain(L.Conv2D(4, 3), L.SpatialDropout2D(0.5), L.Dropout(0.25), L.GaussianNoise(0.1))
    dropouts = (L.SpatialDropout2D, L.Dropout, L.GaussianNoise)
    assert not [layer for layer in ka.mirror(encoder).layers if isinstance(layer, dropouts)]
    kept = [layer for layer in ka.mirror(encoder, dropout="keep").layers if isinstance(layer, dropouts)]
    assert [type(layer) for layer in kept] == list(reversed(dropouts)) and kept[1].rate == 0.25


@pytest.mark.any_backend
@pytest.mark.parametrize("mode", ["none", "own", "subtract", "repeat", "average", "learned"])
def test_biases_are_those_of_adjoints_and_left_out_where_they_have_nothing_to_start_from(mode):
    first, second = L.Conv2D(2 if mode == "repeat" else 4, 3), L.Conv2D(5, 3, use_bias=False)
    encoder = chain(first, second)
    code = features(9, 7, 5)
    without = {"bias": mode} if mode in ("none", "own") else {}
    expected = ka.adjoint(first, bias=mode)(ka.adjoint(second, **without)(code))
    assert_close(back(encoder, code, bias=mode), values(expected))


def test_a_bias_that_cannot_be_adapted_is_named_with_its_place():
    with pytest.raises(ValueError, match="At `encoder/wide`: .*cannot make fewer channels"):
        ka.mirror(chain(L.Conv2D(4, 3, name="wide")), bias="repeat")


def test_policies_can_be_functions_and_names_win_over_classes():
    encoder = chain(L.BatchNormalization(name="a"), L.BatchNormalization(name="b"), L.BatchNormalization(name="c"))
    code = features(13, 11, 3)
    scales = {
        layer.name: values(layer.gamma / ops.sqrt(layer.moving_variance + layer.epsilon))
        for layer in encoder.layers[1:]
    }
    assert_close(
        back(encoder, code, norm={"a": "skip", L.BatchNormalization: "adjoint"}), code * scales["b"] * scales["c"]
    )
    assert_close(back(encoder, code, norm=lambda layer: "adjoint" if layer.name == "c" else "skip"), code * scales["c"])
    assert_close(back(encoder, code, norm={"b": "adjoint", "default": "skip"}), code * scales["b"])


def test_a_policy_about_layers_that_have_no_such_thing_changes_nothing():
    encoder = chain(L.Conv2D(4, 3, activation="relu"), L.Conv2D(4, 3))
    code = features(9, 7, 4)
    expected = back(encoder, code, activation="linear")
    assert_close(back(encoder, code, activation={L.Conv2D: "linear"}, norm={L.Conv2D: "skip"}), expected)


def test_an_unknown_layer_can_be_declared_an_activation_or_a_norm():
    conv = L.Conv2D(4, 3, padding="same")
    encoder = chain(conv, Cube(name="cube"), L.Conv2D(4, 1))
    code = features(13, 11, 4)
    linear = chain(conv, encoder.layers[-1])
    for policies in ({"activation": {Cube: "linear"}}, {"norm": {"cube": "skip"}}):
        assert_close(back(encoder, code, bias="none", **policies), values(ka.adjoint(linear)(code)))
    assert [layer for layer in ka.mirror(encoder, activation={Cube: "same"}).layers if isinstance(layer, Cube)]


# --- functions that are part of a policy


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "policy", [{"activation": {lambda layer: layer.units: "linear"}}, {"norm": lambda layer: layer.units}]
)
def test_an_error_of_a_predicate_names_the_layer_that_it_was_asked_about(policy):
    encoder = chain(L.Conv2D(4, 3), L.BatchNormalization(name="normed"), L.Activation("tanh", name="bent"))
    with pytest.raises(ValueError, match="`<lambda>`.*`(normed|bent)`.*Received: AttributeError: .*units"):
        ka.mirror(encoder, **policy)
