"""The option `algorithm`, and `autotune`, which sets it by timing."""

import keras
import numpy as np
import pytest
from geometries import random
from helpers import DATA_FORMATS, record_algorithms
from keras import ops

import keras_adjoint as ka
from keras_adjoint.ops.algorithms.choose import BY_NAME
from keras_adjoint.ops.backend import current


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "fold" or current().FOLDED_RANKS])
def test_an_algorithm_that_was_asked_for_is_used_and_saved(name, tmp_path, monkeypatch):
    inputs = keras.Input((9, 8, 2))
    conv = keras.layers.Conv2D(3, 3, strides=2, padding="same")
    features = conv(inputs)
    decode = ka.adjoint(conv, algorithm=name)
    model = keras.Model(inputs, decode(features))
    ran = record_algorithms(monkeypatch)
    y = random((1, 5, 4, 3), 0, "float32")
    found = ops.convert_to_numpy(decode(y))
    assert ran == [name]
    np.testing.assert_allclose(found, ops.convert_to_numpy(ka.adjoint(conv)(y)), rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").get_layer(decode.name).algorithm == name


def test_an_unknown_algorithm_is_refused_by_name():
    conv = keras.layers.Conv1D(3, 3)
    conv(keras.Input((9, 2)))
    with pytest.raises(ValueError, match='"subpixel".*Received: algorithm=.winograd'):
        ka.adjoint(conv, algorithm="winograd")


def test_an_algorithm_that_does_not_fit_says_which_do():
    conv = keras.layers.Conv1D(4, 3, groups=2)
    features = conv(keras.Input((9, 2)))
    decode = ka.adjoint(conv, algorithm="columns")
    with pytest.raises(ValueError, match=r"those that can are .*'subpixel'.*Received: algorithm='columns'"):
        decode(np.ones((1, *features.shape[1:])))


def test_autotune_keeps_the_fastest_of_those_that_fit():
    conv = keras.layers.Conv2D(8, 3, strides=2)
    conv(keras.Input((17, 17, 4)))
    decode = ka.adjoint(conv)
    times = ka.autotune(decode, (2, 8, 8, 8), seconds=0.01)
    assert decode.algorithm == min(times, key=times.get) == next(iter(times))
    assert {"subpixel", "phases", "columns", "shifts", "native"} <= set(times)
    copy = type(decode).from_config(decode.get_config() | {"tied": False})
    assert copy.algorithm == decode.algorithm


@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_autotune_takes_separable_layers_and_both_data_formats(data_format):
    separable = keras.layers.SeparableConv2D(6, 3, depth_multiplier=2, data_format=data_format)
    shape = (9, 8, 3) if data_format == "channels_last" else (3, 9, 8)
    separable.build((None, *shape))
    decode = ka.adjoint(separable, output_size=(9, 8))
    times = ka.autotune(decode, (1, 7, 6, 6) if data_format == "channels_last" else (1, 6, 7, 6), seconds=0.01)
    assert decode.algorithm in times


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, 8, 8, 8), "needs every size"),
        ((2, 8, 8), "4 with the batch"),
        ((2, 3, 3, 8), "size"),
        (None, "needs every size of the input, 4 with the batch. Received: shape=None"),
        (2, "Received: shape=2"),
        ("2888", "Received: shape='2888'"),
        (np.ones(4), "Received: shape=array"),
        (keras.Input((8, 8, 8)), "Received: shape=<KerasTensor"),
    ],
)
def test_autotune_refuses_shapes_that_are_not_the_layers(shape, message):
    conv = keras.layers.Conv2D(8, 3, strides=2)
    conv(keras.Input((17, 17, 4)))
    with pytest.raises((ValueError, ka.SizeError), match=message):
        ka.autotune(ka.adjoint(conv, output_size=(17, 17)), shape)


@pytest.mark.parametrize("seconds", [None, "1", -1, float("nan"), float("inf"), True, [1]], ids=str)
def test_autotune_refuses_what_is_no_time(seconds):
    conv = keras.layers.Conv2D(8, 3)
    conv(keras.Input((9, 9, 4)))
    with pytest.raises(ValueError, match="`seconds` must be a number from 0 on. Received: seconds="):
        ka.autotune(ka.adjoint(conv), np.array((1, 7, 7, 8)), seconds=seconds)


def test_autotune_refuses_layers_without_algorithms():
    with pytest.raises(ValueError, match="adjoint of a convolution.*Received: layer=.*Dense"):
        ka.autotune(keras.layers.Dense(3), (1, 2))


def test_unknown_sizes_have_an_algorithm_too():
    inputs = keras.Input((None, None, 2))
    conv = keras.layers.Conv2D(3, 3)
    features = conv(inputs)
    model = keras.Model(inputs, ka.adjoint(conv)(features))
    x = random((1, 9, 8, 2), 0, "float32")
    assert model.predict(x, verbose=0).shape == x.shape


@pytest.mark.only_on("torch")  # the others compile anew for every number of samples
@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras.layers.Conv2D(8, 3, strides=2, padding="same"),
        lambda: keras.layers.Conv2D(8, 3, dilation_rate=2),
        lambda: keras.layers.DepthwiseConv2D(3, strides=2),
    ],
)
def test_an_adjoint_that_pytorch_compiled_takes_other_numbers_of_samples(layer):
    import torch

    source = layer()
    features = source(np.ones((1, 16, 16, 4), "float32"))
    decode = ka.adjoint(source)
    decode(features)  # Keras builds no layer in PyTorch's trace
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(decode, backend=counted, fullgraph=True)
    for batch in range(2, 9):
        y = ops.convert_to_tensor(np.random.default_rng(batch).normal(size=(batch, *features.shape[1:])), "float32")
        np.testing.assert_allclose(
            ops.convert_to_numpy(compiled(y)), ops.convert_to_numpy(decode(y)), rtol=1e-4, atol=1e-5
        )
    assert len(graphs) <= 3  # the first size, any other, and one more where another algorithm becomes the cheapest
