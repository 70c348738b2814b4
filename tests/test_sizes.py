"""Sizes: recorded, asked for, dynamic, or ambiguous with an error that lists the candidates."""

import keras
import numpy as np
import pytest
from helpers import in_turn
from keras import ops
from layer_list import KERAS

import keras_adjoint as ka

L = keras.layers


def built(layer, *sizes, channels=2):
    layer.build((None, *sizes, channels))
    return layer


def outputs_of(layer, *sizes, channels=2):
    return np.ones(layer.compute_output_shape((1, *sizes, channels)), "float32")


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
@pytest.mark.parametrize("taps", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_recorded_size_comes_back_whatever_the_stride(padding, taps, stride):
    for size in range(8, 17):
        conv = built(L.Conv1D(1, taps, strides=stride, padding=padding), size)
        assert ka.adjoint(conv).compute_output_shape(conv.compute_output_shape((1, size, 2))) == (1, size, 2)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_unknown_size_at_stride_one_is_no_question(padding):
    conv = built(L.Conv2D(3, 3, padding=padding), None, None)
    for size in ((5, 6), (9, 4)):
        assert ka.adjoint(conv)(outputs_of(conv, *size)).shape == (1, *size, 2)


def test_unknown_size_at_a_stride_is_refused_with_all_candidates():
    conv = built(L.Conv2D(3, 3, strides=2, padding="same"), None, None)
    with pytest.raises(ka.SizeError, match=r"27 or 28 × 13 or 14.*output_size=\(28, 14\).*Received: .*\(14, 7\)"):
        ka.adjoint(conv)(np.ones((1, 14, 7, 3), "float32"))


def test_every_candidate_listed_is_a_size_that_the_source_maps_there():
    conv = built(L.Conv1D(3, 4, strides=3), None)
    for size in (10, 11, 12):
        assert conv.compute_output_shape((1, size, 2)) == (1, 3, 3)
    with pytest.raises(ka.SizeError, match="10 or 11 or 12"):
        ka.adjoint(conv)(np.ones((1, 3, 3), "float32"))


def test_two_recorded_sizes_that_both_fit_are_ambiguous():
    conv = L.Conv1D(3, 3, strides=2, padding="same")
    for size in (27, 28):
        y = conv(keras.Input((size, 2)))
    with pytest.raises(ka.SizeError, match="27 or 28"):
        ka.adjoint(conv)(y)


def test_recorded_size_that_does_not_fit_what_arrives_is_not_used():
    conv = built(L.Conv1D(3, 3, strides=2, padding="same"), 28)
    with pytest.raises(ka.SizeError, match="9 or 10"):
        ka.adjoint(conv)(np.ones((1, 5, 3), "float32"))


@pytest.mark.parametrize(
    "size",
    [(27, 13), [27, 13], (1, 27, 13, 2), np.array([27, 13]), np.zeros((1, 27, 13, 2), "float32")],
    ids=["tuple", "list", "whole shape", "integer array", "tensor of that size"],
)
def test_output_size_is_understood_in_every_form(size):
    conv = built(L.Conv2D(3, 3, strides=2, padding="same"), None, None)
    y = np.ones((1, 14, 7, 3), "float32")
    assert ka.adjoint(conv)(y, output_size=size).shape == (1, 27, 13, 2)
    assert ka.adjoint(conv)(y, output_size=ops.shape(ops.zeros((27, 13)))).shape == (1, 27, 13, 2)


def test_output_size_at_construction_and_a_call_overrides_it():
    conv = built(L.Conv1D(3, 3, strides=2, padding="same"), 28)
    y = np.ones((1, 14, 3), "float32")
    for size in (27, (27,), np.array([27])):
        assert ka.adjoint(conv, output_size=size)(y).shape == (1, 27, 2)
    layer = ka.adjoint(conv, output_size=27)
    assert layer(y).shape == (1, 27, 2)
    assert layer(y, output_size=(28,)).shape == (1, 28, 2)


def test_output_size_at_construction_survives_saving(tmp_path):
    inputs = keras.Input((28, 2))
    conv = L.Conv1D(3, 3, strides=2, padding="same")
    y = conv(inputs)
    model = keras.Model(inputs, ka.adjoint(conv, output_size=27)(y))
    model.save(tmp_path / "m.keras")
    assert keras.saving.load_model(tmp_path / "m.keras").output_shape == (None, 27, 2)


def test_impossible_output_size_is_refused_with_what_is_possible():
    conv = built(L.Conv1D(3, 3, strides=2, padding="same"), 28)
    with pytest.raises(ka.SizeError, match=r"no input of size \(30,\).*27 to 28.*Received: output_size=\(30,\)"):
        ka.adjoint(conv)(np.ones((1, 14, 3), "float32"), output_size=(30,))


def test_impossible_output_size_is_refused_in_numpy_integers_too():
    conv = built(L.Conv1D(3, 3, strides=2, padding="same"), 28)
    with pytest.raises(ka.SizeError, match="27 to 28"):
        ka.adjoint(conv)(np.ones((1, 14, 3), "float32"), output_size=np.array([30]))


@pytest.mark.any_backend
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_an_axis_of_length_zero_is_refused_by_us(padding):
    conv = keras.layers.Conv1D(2, 3, padding=padding)
    conv.build((None, 6, 3))
    with pytest.raises(ka.SizeError, match="length 0"):
        ka.adjoint(conv)(np.ones((1, 0, 2)))


def test_output_size_of_the_wrong_rank_is_refused():
    conv = built(L.Conv2D(3, 3), 9, 9)
    with pytest.raises(ka.SizeError, match=r"takes 2 sizes.*Received: output_size=\(1, 2, 3\)"):
        ka.adjoint(conv, output_size=(1, 2, 3))


def test_size_that_no_transposed_convolution_gives_is_refused():
    layer = built(L.Conv1DTranspose(3, 4, strides=3), 5)
    with pytest.raises(ka.SizeError, match="gives no output of size 15 .* the nearest are 13 and 16"):
        ka.adjoint(layer)(np.ones((1, 15, 3), "float32"))


def test_up_sampling_refuses_sizes_that_are_no_multiples():
    with pytest.raises(ka.SizeError, match=r"by 2 gives no output of size 5.*Received"):
        ka.adjoint(L.UpSampling1D(2))(np.ones((1, 5, 3), "float32"))


def test_global_pooling_without_a_recorded_size_asks_for_one():
    pool = L.GlobalAveragePooling2D()
    with pytest.raises(ka.SizeError, match="pools inputs of any size.*output_size"):
        ka.adjoint(pool)(np.ones((1, 3), "float32"))
    assert ka.adjoint(pool)(np.ones((1, 3), "float32"), output_size=(2, 5)).shape == (1, 2, 5, 3)
    assert ka.adjoint(pool, output_size=(2, 5))(np.ones((1, 3), "float32")).shape == (1, 2, 5, 3)


def test_flatten_without_a_recorded_shape_asks_for_one():
    with pytest.raises(ka.SizeError, match=r"none recorded.*output_size.*Received: y.shape=\(1, 12\)"):
        ka.adjoint(L.Flatten())(np.ones((1, 12), "float32"))
    assert ka.adjoint(L.Flatten())(np.ones((1, 12), "float32"), output_size=(2, 6)).shape == (1, 2, 6)
    assert ka.adjoint(L.Flatten(), output_size=(4, None))(np.ones((1, 12), "float32")).shape == (1, 4, 3)


RESHAPING = {"flatten": L.Flatten, "reshape": lambda: L.Reshape((-1,))}


@pytest.mark.parametrize("name", RESHAPING)
def test_reshaping_goes_back_to_the_shape_of_a_tensor(name):
    y, like = np.arange(12.0, dtype="float32")[None], np.zeros((1, 2, 6), "float32")
    source = RESHAPING[name]()
    source(keras.Input((3, 4)))
    layer = ka.adjoint(source)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(y, output_size=like)), y.reshape(1, 2, 6))
    assert layer(keras.Input((12,)), output_size=keras.Input((2, 6))).shape == (None, 2, 6)


@pytest.mark.parametrize("name", RESHAPING)
def test_reshaping_of_one_unknown_size_goes_back_to_it(name):
    layer = RESHAPING[name]()
    y = layer(keras.Input((None, 4)))
    back = ka.adjoint(layer)
    assert back(y).shape == (None, None, 4)
    for size in (2, 3):
        y = np.arange(8.0 * size, dtype="float32").reshape(2, -1)
        np.testing.assert_array_equal(ops.convert_to_numpy(back(y)), y.reshape(2, size, 4))


@pytest.mark.parametrize("name", RESHAPING)
@pytest.mark.parametrize("symbolic", [False, True])
def test_reshaping_of_two_shapes_goes_back_to_the_one_with_as_many_elements(name, symbolic):
    layer = RESHAPING[name]()
    for shape in ((2, 6), (3, 5)):
        layer(keras.Input(shape))
    back = ka.adjoint(layer)
    for shape in ((2, 6), (3, 5)):
        y = keras.Input((shape[0] * shape[1],)) if symbolic else np.ones((1, shape[0] * shape[1]), "float32")
        assert back(y).shape == (None if symbolic else 1, *shape)


@pytest.mark.parametrize("name", RESHAPING)
def test_reshaping_of_two_shapes_of_as_many_elements_is_ambiguous(name):
    layer = RESHAPING[name]()
    for shape in ((2, 6), (3, 4)):
        y = layer(keras.Input(shape))
    with pytest.raises(ka.SizeError, match=r"\(2, 6\) or \(3, 4\).*output_size.*Received"):
        ka.adjoint(layer)(y)


@pytest.mark.parametrize("asked, expected", [((None, None), (28, 13)), ((27, None), (27, 13)), ((None, 14), (28, 14))])
def test_where_no_size_is_asked_for_along_an_axis_the_recorded_one_comes_back(asked, expected):
    conv = built(L.Conv2D(3, 3, strides=2, padding="same"), 28, 13)
    y = np.ones((1, 14, 7, 3), "float32")
    assert ka.adjoint(conv, output_size=asked)(y).shape == (1, *expected, 2)
    if any(asked) or KERAS >= (3, 13):  # before, Keras takes an argument of nothing but `None` for tensors
        assert ka.adjoint(conv)(y, output_size=asked).shape == (1, *expected, 2)


LAYERS_OF_ANY_SIZE = {
    "conv": lambda: L.Conv2D(3, 3, strides=2, padding="same"),
    "valid conv": lambda: L.Conv2D(3, 4, strides=3),
    "depthwise": lambda: L.DepthwiseConv2D(3, strides=2, padding="same"),
    "average pooling": lambda: L.AveragePooling2D(3, 2, padding="same"),
    "max pooling": lambda: L.MaxPooling2D(3, 2, padding="same"),
    "global average pooling": lambda: L.GlobalAveragePooling2D(),
    "up-sampling": lambda: L.UpSampling2D(2),
}


@pytest.mark.parametrize("name", in_turn(LAYERS_OF_ANY_SIZE, always=["tensorflow", "torch"]))
def test_one_model_serves_images_of_every_size(name, tmp_path):
    """Batch and spatial sizes are unknown when the model is built; the size comes from the input itself."""
    inputs = keras.Input((None, None, 2))
    layer = LAYERS_OF_ANY_SIZE[name]()
    y = layer(inputs)
    back = ka.adjoint(layer)
    wanted = {"max pooling": {"switches": inputs}, "up-sampling": {}}.get(name, {"output_size": inputs})
    model = keras.Model(inputs, back(y, **wanted))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    generator = np.random.default_rng(0)
    for shape in ((1, 9, 8, 2), (3, 12, 11, 2)):
        x = generator.normal(size=shape).astype("float32")
        expected = ops.convert_to_numpy(model(x))
        assert expected.shape == shape
        # `predict` traces a graph in which TensorFlow knows none of the sizes.
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.only_on("tensorflow")  # whose graphs have sizes that are unknown until they run
@pytest.mark.parametrize("name", LAYERS_OF_ANY_SIZE)
def test_a_graph_of_unknown_sizes_computes_what_the_eager_layer_does(name):
    import tensorflow as tf

    layer = LAYERS_OF_ANY_SIZE[name]()
    layer.build((None, None, None, 2))
    back = ka.adjoint(layer)
    wanted = "switches" if name == "max pooling" else "output_size"

    def autoencode(x):
        return back(layer(x)) if name == "up-sampling" else back(layer(x), **{wanted: x})

    graph = tf.function(autoencode, input_signature=[tf.TensorSpec((None, None, None, 2))])
    for shape in ((1, 9, 8, 2), (3, 12, 11, 2), (2, 7, 7, 2)):
        x = np.random.default_rng(0).normal(size=shape).astype("float32")
        np.testing.assert_allclose(graph(x), autoencode(x), rtol=1e-5, atol=1e-5)


@pytest.mark.only_on("tensorflow")  # whose graphs have sizes that are unknown until they run
def test_bilinear_collecting_works_in_a_graph_of_unknown_sizes():
    import tensorflow as tf

    back = ka.adjoint(L.UpSampling2D(2, interpolation="bilinear"))
    graph = tf.function(lambda y: back(y), input_signature=[tf.TensorSpec((None, None, None, 2))])
    y = np.random.default_rng(0).normal(size=(2, 8, 6, 2)).astype("float32")
    np.testing.assert_allclose(graph(y), back(y), rtol=1e-5, atol=1e-5)


@pytest.mark.only_on("tensorflow")  # whose graphs have sizes that are unknown until they run
def test_a_graph_of_unknown_sizes_does_not_trust_the_recorded_size():
    import tensorflow as tf

    conv = built(L.Conv1D(3, 3, strides=2, padding="same"), 28)
    graph = tf.function(lambda y: ka.adjoint(conv)(y), input_signature=[tf.TensorSpec((None, None, 3))])
    with pytest.raises(ka.SizeError, match="known only when the graph runs.*output_size"):
        graph(np.ones((1, 14, 3), "float32"))


# --- whole shapes


def with_lambda():
    layer = keras.layers.Lambda(lambda x: x[:, 1:, 1:] - x[:, :-1, :-1])
    layer(keras.Input((9, 9, 3)))
    return layer


WHOLE = {
    "convolution": (lambda: keras.layers.Conv2D(4, 3, strides=2, padding="same"), (5, 5, 4)),
    "depthwise": (lambda: keras.layers.DepthwiseConv2D(3, strides=2, padding="same"), (5, 5, 3)),
    "average pooling": (lambda: keras.layers.AveragePooling2D(2), (4, 4, 3)),
    "global average pooling": (lambda: keras.layers.GlobalAveragePooling2D(), (3,)),
    "flatten": (lambda: keras.layers.Flatten(), (243,)),
    "without a rule": (with_lambda, (8, 8, 3)),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("positional", [False, True])
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_shape_in_a_call_has_the_batch_and_the_channels_of_the_result(name, positional):
    make, shape = WHOLE[name]
    layer = make()
    layer.build((None, 9, 9, 3))
    decode = ka.adjoint(layer)

    def call(y, size):
        return decode(y, size) if positional else decode(y, output_size=size)

    for y in (np.ones((2, *shape), "float32"), keras.Input(shape, batch_size=2)):
        for good in (np.ones((2, 9, 9, 3)), np.ones((1, 9, 9, 3))):
            assert tuple(call(y, good).shape) == (2, 9, 9, 3)
        for bad in (np.ones((5, 9, 9, 3)), np.ones((2, 9, 9, 7))):
            with pytest.raises(ValueError, match="Received: "):
                call(y, bad)
        if name not in ("flatten", "without a rule"):  # which take shapes without the batch axis
            assert tuple(call(y, (2, 9, 9, 3)).shape) == tuple(call(y, (None, 9, 9, 3)).shape) == (2, 9, 9, 3)
            for bad in ((5, 9, 9, 3), (2, 9, 9, 7), (None, 9, 9, 7)):
                with pytest.raises(ka.SizeError, match="as a whole shape has another batch axis or other channels"):
                    call(y, bad)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["convolution", "depthwise", "average pooling", "global average pooling"])
def test_a_whole_shape_that_an_adjoint_is_made_with_has_its_channels(name):
    make, shape = WHOLE[name]
    layer = make()
    layer.build((None, None, None, 3))
    y = np.ones((2, *shape), "float32")
    decode = ka.adjoint(layer, output_size=(None, 9, 9, 3))
    again = type(decode).from_config(decode.get_config()) if not layer.weights else decode
    assert tuple(again(y).shape) == (2, 9, 9, 3)
    with pytest.raises(ValueError, match="channels|axis -1 has size 7"):
        ka.adjoint(layer, output_size=(None, 9, 9, 7))(y)


@pytest.mark.any_backend
def test_a_size_for_several_tensors_is_taken_as_it_is():
    x = keras.Input((6, 2))
    layer = keras.layers.Lambda(lambda x: [x[:, 1:], x[:, :-1]])
    y = layer(x)
    decode = ka.adjoint(layer)
    assert decode(y, output_size=(6, 2)).shape == ka.adjoint(keras.Model(x, y)).output_shape == (None, 6, 2)
    assert tuple(decode([np.ones((3, 5, 2), "float32")] * 2, output_size=(6, 2)).shape) == (3, 6, 2)
