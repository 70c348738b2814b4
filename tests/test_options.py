"""The options of `adjoint`: biases, channels, copies; and what the result says of itself."""

import re

import keras
import numpy as np
import pytest
from keras import ops

import keras_adjoint as ka

L = keras.layers


def convolution(filters=6, channels=3, **options):
    conv = L.Conv2D(filters, 3, strides=2, padding="same", bias_initializer="normal", **options)
    conv.build((None, 7, 8, channels))
    return conv


SOURCES = {
    "conv": lambda: (convolution(), 6, 3),
    "channels first": lambda: (convolution_channels_first(), 6, 3),
    "conv transpose": lambda: (with_shape(L.Conv2DTranspose(6, 3, strides=2, bias_initializer="normal"), 3), 6, 3),
    "depthwise": lambda: (with_shape(L.DepthwiseConv2D(3, depth_multiplier=2, bias_initializer="normal"), 3), 6, 3),
    "separable": lambda: (with_shape(L.SeparableConv2D(6, 3, bias_initializer="normal"), 3), 6, 3),
    "dense": lambda: (with_shape(L.Dense(6, bias_initializer="normal"), 3), 6, 3),
}


def with_shape(layer, channels):
    layer.build((None, 7, 8, channels))
    return layer


def convolution_channels_first():
    conv = L.Conv2D(6, 3, strides=2, padding="same", bias_initializer="normal", data_format="channels_first")
    conv.build((None, 3, 7, 8))
    return conv


def output_of(source):
    """A random tensor of the shape of the source's output."""
    shape = source.compute_output_shape(source.get_build_config()["input_shape"])
    return np.random.default_rng(0).normal(size=(2, *shape[1:])).astype("float32")


def channel_axis(source):
    return 1 if getattr(source, "data_format", "") == "channels_first" else -1


def along_channels(vector, source, rank):
    shape = [1] * rank
    shape[channel_axis(source)] = -1
    return np.reshape(vector, shape)


def values(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("name", SOURCES)
class TestBias:
    def test_none_adds_nothing_and_owns_nothing(self, name):
        source, _, _ = SOURCES[name]()
        layer = ka.adjoint(source)
        layer(output_of(source))
        assert len(layer.weights) == len(source.weights)
        zeros = np.zeros_like(output_of(source))
        assert np.abs(values(layer(zeros))).max() == 0

    def test_own_is_a_new_trainable_bias_that_starts_at_zero(self, name):
        source, _, channels = SOURCES[name]()
        y = output_of(source)
        layer = ka.adjoint(source, bias="own")
        plain = values(ka.adjoint(source)(y))
        np.testing.assert_allclose(values(layer(y)), plain, rtol=1e-5, atol=1e-6)
        bias = next(w for w in layer.trainable_weights if all(w is not s for s in source.weights))
        assert bias.shape == (channels,)
        bias.assign(np.arange(channels))
        expected = plain + along_channels(np.arange(channels), source, y.ndim)
        np.testing.assert_allclose(values(layer(y)), expected, rtol=1e-5, atol=1e-5)

    def test_subtract_undoes_the_bias_of_the_source(self, name):
        source, filters, _ = SOURCES[name]()
        y = output_of(source)
        expected = ka.adjoint(source)(y - along_channels(values(source.bias), source, y.ndim))
        np.testing.assert_allclose(
            values(ka.adjoint(source, bias="subtract")(y)), values(expected), rtol=1e-4, atol=1e-5
        )

    def test_average_starts_from_the_means_of_the_source_and_is_trained_apart(self, name):
        source, filters, channels = SOURCES[name]()
        y = np.zeros_like(output_of(source))
        layer = ka.adjoint(source, bias="average")
        means = [values(source.bias)[i::channels].mean() for i in range(channels)]
        x = values(layer(y))
        np.testing.assert_allclose(x, np.broadcast_to(along_channels(means, source, y.ndim), x.shape), rtol=1e-5)
        source.bias.assign(source.bias * 2)
        np.testing.assert_array_equal(values(layer(y)), x)

    def test_repeat_copies_the_bias_in_turn(self, name):
        source, filters, _ = SOURCES[name]()
        y = np.zeros_like(output_of(source))
        layer = ka.adjoint(source, bias="repeat", channels=8)
        expected = np.resize(values(source.bias), 8)
        x = values(layer(y))
        np.testing.assert_allclose(x, np.broadcast_to(along_channels(expected, source, y.ndim), x.shape), rtol=1e-5)

    def test_learned_is_a_trainable_map_that_follows_the_bias_of_the_source(self, name):
        source, filters, channels = SOURCES[name]()
        y = np.zeros_like(output_of(source))
        layer = ka.adjoint(source, bias="learned")
        before = values(layer(y))
        source.bias.assign(source.bias * 2)
        np.testing.assert_allclose(values(layer(y)), 2 * before, rtol=1e-5)
        assert (filters, channels) in [tuple(w.shape) for w in layer.trainable_weights]


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(
    "method, channels", [("repeat", 7), ("average", 2), ("truncate", 2), ("pad", 5), ("learned", 7), ("learned", 2)]
)
def test_channels_are_adapted_as_the_method_says(name, method, channels):
    source, _, own = SOURCES[name]()
    y = output_of(source)
    exact = np.moveaxis(values(ka.adjoint(source)(y)), channel_axis(source), -1)
    expected = {
        "repeat": lambda: exact[..., np.arange(channels) % own],
        "average": lambda: np.stack([exact[..., i::channels].mean(-1) for i in range(channels)], -1),
        "truncate": lambda: exact[..., :channels],
        "pad": lambda: np.concatenate([exact, np.zeros((*exact.shape[:-1], channels - own))], -1),
    }
    start = {"learned": "repeat" if channels > own else "average"}.get(method, method)
    layer = ka.adjoint(source, channels=channels, channel_method=method)
    found = np.moveaxis(values(layer(y)), channel_axis(source), -1)
    np.testing.assert_allclose(found, expected[start](), rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape(y.shape) == tuple(np.moveaxis(found, -1, channel_axis(source)).shape)
    trained = [tuple(w.shape) for w in layer.trainable_weights if all(w is not s for s in source.weights)]
    assert trained == ([(own, channels)] if method == "learned" else [])


def test_the_result_says_whether_it_is_the_adjoint():
    source = convolution()
    assert ka.adjoint(source).exact and ka.adjoint(source, bias="own").exact
    changed = ka.adjoint(source, channels=5)
    assert not changed.exact
    with pytest.raises(ka.NoRuleError, match="the shape of its input must be known"):
        ka.adjoint(changed)


def test_copies_and_means_keep_the_scale_of_the_output():
    source = convolution(channels=4)
    y = np.random.default_rng(0).normal(size=(8, 4, 4, 6)).astype("float32")
    exact = values(ka.adjoint(source)(y))
    repeated = values(ka.adjoint(source, channels=8, channel_method="repeat")(y))
    assert np.sqrt((repeated**2).mean()) == pytest.approx(np.sqrt((exact**2).mean()), rel=1e-5)
    averaged = values(ka.adjoint(source, channels=2, channel_method="average")(y))
    np.testing.assert_allclose(averaged.mean(-1), exact.mean(-1), rtol=1e-4, atol=1e-6)


def test_options_survive_saving(tmp_path):
    inputs = keras.Input((7, 8, 3))
    conv = L.Conv2D(6, 3, strides=2, padding="same", bias_initializer="normal")
    y = conv(inputs)
    outputs = [
        ka.adjoint(conv, bias="own")(y),
        ka.adjoint(conv, bias="subtract")(y),
        ka.adjoint(conv, bias="learned", channels=5)(y),
        ka.adjoint(conv, bias="repeat", channels=7, channel_method="repeat")(y),
        ka.adjoint(conv, tied=False)(y),
    ]
    model = keras.Model(inputs, outputs)
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    x = np.random.default_rng(1).normal(size=(2, 7, 8, 3)).astype("float32")
    for found, expected in zip(loaded(x), model(x), strict=True):
        np.testing.assert_allclose(values(found), values(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: with_shape(L.Rescaling(2.0, offset=3.0), 3), lambda: shifted_batch_norm()])
def test_scaling_layers_subtract_their_shift(make):
    source = make()
    x = np.random.default_rng(0).normal(size=(2, 7, 8, 3)).astype("float32")
    scale = values(source(np.ones_like(x))) - values(source(np.zeros_like(x)))
    np.testing.assert_allclose(
        values(ka.adjoint(source, bias="subtract")(source(x))), scale**2 * x, rtol=1e-4, atol=1e-4
    )


def shifted_batch_norm():
    norm = with_shape(L.BatchNormalization(), 3)
    for weight, value in zip(
        norm.weights, ([1.0, -2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0], [1.0, 4.0, 9.0]), strict=True
    ):
        weight.assign(value)
    return norm


def test_adjoint_of_the_adjoint_takes_no_options():
    with pytest.raises(ValueError, match="adjoint of an adjoint is its source itself.*bias"):
        ka.adjoint(ka.adjoint(convolution()), bias="own")


def test_name_is_given_to_the_new_layer():
    assert ka.adjoint(convolution(), name="back").name == "back"
    assert ka.adjoint(L.Permute((2, 1)), name="turned").name == "turned"


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "given, channels",
    [
        ({"bias": "average"}, 9),
        ({"bias": "repeat"}, 3),
        ({"bias": "average", "channels": 8}, 3),
        *(({"channel_method": method, "channels": 8}, 3) for method in ("average", "truncate")),
        *(({"channel_method": method, "channels": 2}, 3) for method in ("repeat", "pad")),
    ],
    ids=str,
)
def test_a_method_that_does_not_fit_is_refused_in_the_words_of_its_option_and_the_advice_works(given, channels):
    layer = with_shape(L.Dense(6), channels)
    option, method = next(iter(given.items()))
    with pytest.raises(ValueError, match=f"^`{option}='{method}'` cannot .* Received: {option}='{method}'") as error:
        ka.adjoint(layer, **given)
    advice = re.search(rf"Use `{option}='(\w+)'` instead", str(error.value)).group(1)
    ka.adjoint(layer, **{**given, option: advice})
