"""`deconvnet`: one layer's features, selected and carried back to pixels."""

import keras
import numpy as np
import pytest
from autodiff import gradients
from encoders import X, assert_close, values
from keras import ops
from layer_list import randomize

import keras_adjoint as ka

pytestmark = pytest.mark.any_backend

L = keras.layers
GRADIENT = {"activation": "gradient"}


def network(nested=False):
    x = keras.Input((13, 11, 3))
    y = L.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(L.Rescaling(0.5, offset=0.1)(x))
    y = L.MaxPooling2D(2, name="pool")(y)
    block = [L.Conv2D(5, 3, strides=2, padding="same", name="conv2"), L.BatchNormalization(), L.ReLU(name="relu2")]
    if nested:
        y = keras.Sequential([keras.Input(y.shape[1:]), *block], name="block")(y)
    else:
        for layer in block:
            y = layer(y)
    model = keras.Model(
        x, L.Dense(7, name="top", activation="softmax")(L.GlobalAveragePooling2D(name="mean")(y)), name="net"
    )
    for layer in model._flatten_layers(include_self=False):
        if layer.weights and not isinstance(layer, keras.Model):
            randomize(layer)
    return model


def features_of(model, layer):
    return keras.Model(model.input, model.get_layer(layer).output)


def picture(model, *arguments, x=X, **options):
    return values(ka.deconvnet(model, *arguments, **options)(x))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("unit", [(0, 0, 1), (2, 1, 4), (2, 2, 0)])
def test_by_gradients_the_projection_of_a_unit_is_its_own_gradient_times_its_value(nested, unit):
    model = network(nested)
    flat = network()
    flat.set_weights(model.get_weights())
    features = features_of(flat, "relu2")
    x = ops.convert_to_tensor(X)
    (expected,) = gradients(lambda x: ops.sum(features(x)[(slice(None), *unit)] ** 2) / 2, [x])
    assert_close(picture(model, "relu2", unit=unit, **GRADIENT), expected)


@pytest.mark.every_backend
def test_a_deconvnet_rectifies_where_the_network_had_an_activation():
    model = network()
    conv1, pool = model.get_layer("conv1"), model.get_layer("pool")
    before, pooled = values(features_of(model, "conv1")(X)), values(features_of(model, "pool")(X))
    y = ops.relu(pooled)
    y = ka.adjoint(pool)(y, switches=ops.convert_to_tensor(before))
    linear = L.Conv2D(4, 3, padding="same", use_bias=False)
    linear.build((None, 13, 11, 3))
    linear.kernel.assign(conv1.kernel)
    expected = 0.5 * values(ka.adjoint(linear, output_size=(13, 11))(ops.relu(y)))
    assert_close(picture(model, "pool"), expected)


@pytest.mark.every_backend
def test_projections_of_all_channels_add_up_where_the_backward_pass_is_linear():
    model = network()
    whole = picture(model, "conv2", **GRADIENT)
    assert_close(sum(picture(model, "conv2", channel=channel, **GRADIENT) for channel in range(5)), whole)


def test_the_strongest_channels_come_first_each_by_its_strongest_unit():
    model = network()
    features = values(features_of(model, "relu2")(X))
    found = picture(model, "relu2", strongest=3)
    assert found.shape == (2, 3, 13, 11, 3)
    for sample in range(2):
        channels = np.argsort(-features[sample].max(axis=(0, 1)), kind="stable")[:3]
        for rank, channel in enumerate(channels):
            place = np.unravel_index(features[sample, ..., channel].argmax(), features.shape[1:3])
            one = picture(model, "relu2", unit=(*place, channel), x=X[sample : sample + 1])
            assert_close(found[sample, rank], one[0])


@pytest.mark.every_backend
def test_the_strongest_units_of_a_channel():
    model = network()
    features = values(features_of(model, "conv2")(X))[..., 2]
    found = picture(model, "conv2", channel=2, strongest=2, **GRADIENT)
    for sample in range(2):
        for rank, flat in enumerate(np.argsort(-features[sample].ravel(), kind="stable")[:2]):
            unit = (*np.unravel_index(flat, features.shape[1:]), 2)
            assert_close(
                found[sample, rank], picture(model, "conv2", unit=unit, x=X[sample : sample + 1], **GRADIENT)[0]
            )


def test_units_of_a_dense_layer_and_channels_first_features():
    model, activation = network(), {"top": "linear", "default": "deconvnet"}
    assert picture(model, "top", unit=(3,), activation=activation).shape == X.shape
    assert picture(model, model.get_layer("mean"), channel=1).shape == X.shape
    x = keras.Input((3, 6, 5))
    first = keras.Model(x, L.ZeroPadding2D(1, data_format="channels_first", name="padding")(x))
    given = np.random.default_rng(0).normal(size=(1, 3, 6, 5)).astype("float32")
    expected = np.zeros_like(given)
    expected[:, 1] = given[:, 1]
    assert_close(picture(first, "padding", channel=1, x=given, activation="linear"), expected)
    expected = np.zeros_like(given)
    expected[0, 2, 3, 4] = given[0, 2, 3, 4]
    assert_close(picture(first, "padding", unit=(2, 4, 5), x=given, activation="linear"), expected)


def at_every_step(x):
    return L.TimeDistributed(L.ZeroPadding2D(0, data_format="channels_first"))(x)


# Layers behind an input, and the axis of their features' channels.
CHANNELS = {
    "a distributed layer": (at_every_step, 2),
    "an activation": (lambda x: L.ReLU()(at_every_step(x)), 2),
    "a permuted tensor": (lambda x: L.Permute((1, 3, 4, 2))(at_every_step(x)), 4),
    "a transposed tensor": (lambda x: ops.transpose(at_every_step(x), (0, 1, 3, 2, 4)), 3),
    "a dense layer": (lambda x: L.Dense(6)(at_every_step(x)), 4),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_the_channels_are_where_the_last_layer_that_says_so_puts_them(name):
    make, axis = CHANNELS[name]
    x = keras.Input((2, 3, 4, 5))
    y = make(x)
    model = keras.Model(x, L.Activation("linear", name="top")(y))
    given = np.random.default_rng(0).normal(size=(1, 2, 3, 4, 5)).astype("float32")
    features = values(model(given))
    kept = np.zeros_like(features)
    kept[(slice(None),) * axis + (1,)] = features[(slice(None),) * axis + (1,)]
    expected = values(ka.adjoint(model, linear_part=True)(kept))
    assert_close(picture(model, "top", channel=1, x=given, activation="linear"), expected)


@pytest.mark.parametrize("in_dictionaries", [False, True])
def test_integers_that_features_do_not_depend_on_have_no_projection(in_dictionaries):
    image, words, length = (
        keras.Input((5, 2), name="image"),
        keras.Input((4,), dtype="int32"),
        keras.Input((), dtype="int32"),
    )
    embedded = L.Embedding(7, 3)(words)
    top = L.Dense(5, activation="relu", name="top")(L.Flatten()(embedded))
    rest = L.Concatenate()([top, L.Flatten()(image), ops.cast(ops.expand_dims(length, -1), "float32")])
    inputs = {"image": image, "length": length, "words": words} if in_dictionaries else [image, length, words]
    given = [np.ones((2, 5, 2), "float32"), np.array([3, 2]), np.array([[1, 2, 3, 4], [0, 0, 1, 1]])]
    found = ka.deconvnet(keras.Model(inputs, L.Dense(2)(rest)), "top")(
        dict(zip(inputs, given, strict=True)) if in_dictionaries else given
    )
    image, words = (found["image"], found["words"]) if in_dictionaries else found
    assert len(found) == 2 and not np.any(values(image)) and image.shape == (2, 5, 2)
    assert np.any(values(words)) and words.shape == (2, 4, 7)


@pytest.mark.every_backend
def test_a_deconvnet_survives_its_file(tmp_path):
    model = ka.deconvnet(network(), "relu2", strongest=2)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert_close(values(loaded(X)), values(model(X)))
    assert model.name == "net_relu2_deconvnet" and model.trainable_weights


def test_a_model_of_unknown_size_projects_every_size():
    x = keras.Input((None, None, 3))
    model = keras.Model(x, L.MaxPooling2D(name="pool")(L.Conv2D(4, 3, strides=2, activation="relu")(x)))
    for size in [(13, 11), (14, 12)]:
        image = np.ones((1, *size, 3), "float32")
        assert picture(model, "pool", strongest=1, x=image).shape == (1, 1, *size, 3)


@pytest.mark.parametrize(
    "layer, options, message",
    [
        ("conv3", {}, r"calls no such layer.*.conv\d.*summary.*has all of them. Received: layer='conv3'"),
        ("conv2", {"channel": 5}, "have 5 channels, counted from 0. Received: channel=5"),
        ("conv2", {"unit": (1, 2)}, r"one index, counted from 0, for each of the features' sizes.*\(3, 3, 5\)"),
        ("conv2", {"unit": (1, 3, 0)}, "one index"),
        ("conv2", {"strongest": 6}, "There are 5 channels to choose from. Received: strongest=6"),
        ("conv2", {"strongest": 0}, "Received: strongest=0"),
        ("conv2", {"strongest": 10, "channel": 1}, "There are 9 units in that channel"),
        ("conv2", {"strongest": 1, "unit": (0, 0, 0)}, "names one unit"),
        ("conv2", {"channel": 1.5}, "`channel` must be an integer. Received: channel=1.5"),
        ("conv2", {"strongest": "2"}, "`strongest` must be an integer. Received: strongest='2'"),
        ("conv2", {"unit": 3}, "`unit` must be a sequence of integers. Received: unit=3"),
        ("conv2", {"unit": keras.Input((3,))}, "sequence of integers. Received: unit=<KerasTensor"),
        ("conv2", {"unit": (1, 2, 0.5)}, r"sequence of integers. Received: unit=\(1, 2, 0.5\)"),
        ("conv2", {"name": 3}, "`name` must be a string without a slash. Received: name=3"),
        (np.zeros(2), {}, "`layer` must be a layer of the model or its name. Received: layer=array"),
        (None, {}, "`layer` must be a layer of the model or its name. Received: layer=None"),
        ("conv2", {"pooling": "max"}, "`pooling` must be one of"),
        (
            "conv2",
            {"chanel": 1},
            'other options are called channel, unit, .* Did you mean "channel"[?] Received: chanel=1',
        ),
    ],
    ids=str,
)
def test_what_does_not_exist_is_refused(layer, options, message):
    with pytest.raises(ValueError, match=message):
        ka.deconvnet(network(), layer, **options)


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match="takes a model. Received"):
        ka.deconvnet(L.Dense(3), "x")
