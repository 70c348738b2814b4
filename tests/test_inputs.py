"""Bad and unusual inputs of every adjoint: the right value or our own error, and the same verdict symbolically and eagerly."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from layer_list import HALF, LAYERS, for_each

import keras_adjoint as ka
from keras_adjoint.layers.tied import Tied

KERAS_ERRORS = (ValueError, NotImplementedError)  # of stock layers that are an adjoint


def numpy_of(structure):
    return keras.tree.map_structure(ops.convert_to_numpy, structure)


def made(case, dtype="float32"):
    """(the adjoint, an input for it, the other arguments of a call)."""
    layer = case.build(dtype)
    xs = case.inputs(dtype)
    y = layer(case.inputs("int32") if isinstance(layer, L.Embedding) else xs)
    switches = case.switches(dtype)
    shape = (1, *y.shape[1:])
    values = np.random.default_rng(0).integers(0, 3, size=shape)
    return case.adjoint(layer), values, {} if switches is None else {"switches": switches}


def symbolic(values):
    return keras.tree.map_structure(lambda value: keras.KerasTensor(value.shape, dtype=str(value.dtype)), values)


def verdict(call, is_ours):
    """The shapes and dtypes of what a call gives, or that it is refused, by one of our errors or by a Keras layer's own."""
    try:
        result = call()
    except Exception as error:
        assert isinstance(error, KERAS_ERRORS), error
        assert not is_ours or "Received: " in str(error), error
        return "refused"
    return [(tuple(x.shape), keras.backend.standardize_dtype(x.dtype)) for x in keras.tree.flatten(result)]


def both(layer, y, arguments):
    """The verdict of a call, after a check that it is the same for symbolic tensors."""
    is_ours = isinstance(layer, Tied)
    eager = verdict(lambda: layer(y, **arguments), is_ours)
    predicted = verdict(lambda: layer(symbolic(y), **symbolic(arguments)), is_ours)
    if is_ours:
        assert eager == predicted
    elif "refused" not in (
        eager,
        predicted,
    ):  # Keras' own layers say another dtype, and refuse what they do not predict
        assert [shape for shape, _ in eager] == [shape for shape, _ in predicted]
    return eager


@for_each(LAYERS, quick=HALF)
def test_integers_and_booleans_are_cast_first(case):
    layer, values, arguments = made(case)
    expected = numpy_of(layer(values.astype("float32"), **arguments))
    for dtype in ("int32", "uint8", "float16"):
        assert both(layer, values.astype(dtype), arguments) != "refused"
        found = numpy_of(layer(values.astype(dtype), **arguments))
        keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, expected)
    if isinstance(layer, Tied):
        expected = numpy_of(layer((values > 0).astype("float32"), **arguments))
        found = numpy_of(layer(values > 0, **arguments))
        keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, expected)
        assert both(layer, values > 0, arguments)[0][1] == "float32"


@for_each(LAYERS, quick=HALF)
def test_wrong_shapes_are_refused_or_right_in_both_ways(case):
    layer, values, arguments = made(case)
    y = values.astype("float32")
    for axis in range(1, y.ndim):
        both(layer, np.concatenate([y, y], axis=axis), arguments)
        both(layer, np.take(y, [0], axis=axis), arguments)
    for wrong in (y[0], y[None], y[..., None]):
        if both(layer, wrong, arguments) != "refused":
            assert takes_any_axes(layer)


def takes_any_axes(layer):
    """Whether a layer is about the last axis alone, or about none."""
    return not isinstance(layer, Tied) or layer.expected.axes is None


@for_each(LAYERS, quick=HALF)
def test_an_empty_batch_comes_back_empty(case):
    layer, values, arguments = made(case)
    y = values.astype("float32")
    shapes = [(0, *shape[1:]) for shape, _ in both(layer, y, arguments)]
    empty = {name: value[:0] for name, value in arguments.items()}
    assert [shape for shape, _ in both(layer, y[:0], empty)] == shapes


@for_each(LAYERS, quick=HALF)
def test_complex_numbers_are_refused_and_none_is_dropped(case):
    layer, values, arguments = made(case)
    if not isinstance(layer, Tied):
        return
    with pytest.raises(ValueError, match="takes a tensor of real numbers. Received: a tensor of dtype complex64"):
        layer(ops.convert_to_tensor(values.astype("complex64")), **arguments)
    with pytest.raises(ValueError, match="takes a tensor of real numbers. Received: a tensor of dtype complex64"):
        layer(symbolic(values.astype("complex64")), **symbolic(arguments))


@for_each(LAYERS, quick=HALF)
def test_what_is_no_tensor_is_refused(case):
    layer, values, arguments = made(case)
    if isinstance(layer, Tied):
        with pytest.raises((ValueError, ka.SizeError), match="Received: "):
            layer([values.astype("float32"), values.astype("float32")], **arguments)


# --- the channels of each layer


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize(
    "layer, shape",
    [
        (lambda: L.Dense(4), (3,)),
        (lambda: L.Conv1D(4, 3), (9, 3)),
        (lambda: L.EinsumDense("abc,cd->abd", (2, 4)), (2, 3)),
        (lambda: L.BatchNormalization(), (2, 4)),
        (lambda: L.Normalization(mean=np.arange(4.0), variance=np.ones(4)), (2, 4)),
        (lambda: L.Rescaling([1.0, 2.0, 3.0, 4.0]), (2, 4)),
        (lambda: L.Embedding(6, 4), (2,)),
    ],
)
def test_other_channels_are_refused_by_name(layer, shape, channels):
    source = layer()
    source.build((None, *shape))
    back = ka.adjoint(source, name="back")
    y = np.ones((*source.compute_output_shape((1, *shape))[:-1], channels), "float32")
    message = rf"`back` takes the output of `{source.name}`: .*size 4. Received: a tensor of shape \(.*{channels}\)"
    with pytest.raises(ValueError, match=message):
        back(y)
    with pytest.raises(ValueError, match=message):
        back(symbolic(y))


def test_rescaling_that_broadcasts_its_input_is_refused():
    layer = L.Rescaling([1.0, 2.0, 3.0])
    layer(keras.Input((4, 1)))
    with pytest.raises(ka.NoRuleError, match=r"broadcasts its input.*Received: input shape \(None, 4, 1\)"):
        ka.adjoint(layer)


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def test_rescaling_of_images_with_channels_first(channels_first):
    layer = L.Rescaling([1.0, 2.0, 3.0])
    x = np.ones((2, 3, 4, 3), "float32")
    np.testing.assert_allclose(numpy_of(ka.adjoint(layer)(x)), numpy_of(layer(x)))


# --- switches


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "bool", "float16", "float64"])
@pytest.mark.parametrize("pool", [L.MaxPooling1D(3, 2, padding="same"), L.GlobalMaxPooling1D()])
def test_switches_of_every_dtype(pool, dtype):
    x = np.random.default_rng(0).permutation(12).reshape(1, 6, 2) % (2 if dtype == "bool" else 12)
    y = numpy_of(pool(x.astype("float32")))
    expected = numpy_of(ka.adjoint(pool)(y, switches=x.astype("float32")))
    np.testing.assert_array_equal(numpy_of(ka.adjoint(pool)(y, switches=x.astype(dtype))), expected)


@pytest.mark.parametrize("lowest", [0, -np.inf])
def test_a_maximum_is_never_in_the_padding(lowest):
    pool = L.MaxPooling1D(3, 2, padding="same")
    dtype = "uint8" if lowest == 0 else "float32"
    x = np.full((1, 5, 1), lowest, dtype)
    back = numpy_of(ka.adjoint(pool)(np.ones((1, 3, 1), "float32"), switches=x))
    assert back.sum() == 3


@pytest.mark.parametrize("shape", [(1, 4, 4, 1), (1, 4, 4, 5), (2, 4, 4, 13), (1, 4, 3, 13), (1, 4, 13)])
@pytest.mark.parametrize("is_global", [False, True])
def test_switches_of_another_shape_are_refused(shape, is_global):
    pool = L.GlobalMaxPooling2D(keepdims=True) if is_global else L.MaxPooling2D(2)
    x = np.ones((1, 8, 8, 13), "float32")
    y = np.ones(shape, "float32")
    for arguments in ((y, x), (symbolic(y), symbolic(x))):
        with pytest.raises(ka.SizeError, match="Pass the tensor that the source pooled. Received: y.shape="):
            ka.adjoint(pool)(*arguments)


# --- sizes


def strided():
    layer = L.Conv2D(2, 3, strides=2, padding="same")
    layer.build((None, None, None, 2))
    return layer, np.ones((1, 3, 4, 2), "float32"), (5, 7)


def flattened():
    return L.Flatten(), np.ones((1, 35), "float32"), (5, 7)


def pooled():
    return L.AveragePooling2D(2, padding="same"), np.ones((1, 3, 4, 2), "float32"), (5, 7)


def pooled_globally():
    return L.GlobalAveragePooling2D(), np.ones((1, 2), "float32"), (5, 7)


SIZED = {"conv": strided, "flatten": flattened, "pooling": pooled, "global pooling": pooled_globally}
FORMS = {
    "tuple": tuple,
    "list": list,
    "array": np.array,
    "array of small integers": lambda size: np.array(size, "uint8"),
    "numpy scalars": lambda size: [np.int64(one) for one in size],
    "tensor": lambda size: ops.convert_to_tensor(np.array(size)),
    "scalar tensors": lambda size: [ops.convert_to_tensor(np.array(one)) for one in size],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SIZED)
def test_sizes_are_understood_in_every_form_alike(name, form):
    source, y, size = SIZED[name]()
    given = FORMS[form](size)
    assert ka.adjoint(source, output_size=given)(y).shape[1:3] == size
    assert ka.adjoint(source)(y, output_size=given).shape[1:3] == size
    if "tensor" not in form:
        assert ka.adjoint(source)(symbolic(y), output_size=given).shape[1:3] == size


BAD = {
    "fraction": (5.7, 7),
    "whole fraction": (5.0, 7),
    "string": "57",
    "strings": ("5", "7"),
    "boolean": True,
    "booleans": (True, 7),
    "numpy boolean": (np.True_, 7),
    "array of booleans": np.array([True, True]),
    "negative": (-5, 7),
    "negative in numpy": np.array([-5, 7]),
    "fractions in numpy": np.array([5.7, 7.0]),
    "one fraction in numpy": np.float32(5),
    "dictionary": {5: 1, 7: 2},
    "set": {5, 7},
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", SIZED)
def test_what_is_no_size_is_refused_with_our_message(name, bad):
    source, y, _ = SIZED[name]()
    calls = [
        lambda: ka.adjoint(source, output_size=BAD[bad])(y),
        lambda: ka.adjoint(source)(y, output_size=BAD[bad]),
        lambda: ka.adjoint(source)(symbolic(y), output_size=BAD[bad]),
    ]
    for call in calls:
        with pytest.raises(ka.SizeError, match="(?s)`output_size` .*Received: "):
            call()


@pytest.mark.parametrize("size", [(5,), (5, 7, 1), (5, 7, 1, 1, 1), ()])
@pytest.mark.parametrize("name", ["conv", "pooling", "global pooling"])
def test_the_wrong_number_of_sizes_is_refused(name, size):
    source, y, _ = SIZED[name]()
    for given in (size, np.array(size, int)):
        with pytest.raises(
            ka.SizeError, match="takes 2 sizes, or a whole shape of 4, with the batch axis and the channels. Received: "
        ):
            ka.adjoint(source)(y, output_size=given)


def merging(layer_class):
    layer = layer_class()
    layer.build([(None, 3, 2), (None, 3, 2)])
    return layer


@pytest.mark.parametrize("five", [5, np.int64(5), np.uint8(5), np.array(5), [5], (5,), np.array([5])])
def test_one_size_in_every_form(five):
    layer = L.Conv1D(2, 3, strides=2, padding="same")
    layer.build((None, None, 2))
    y = np.ones((1, 3, 2), "float32")
    assert ka.adjoint(layer, output_size=five)(y).shape == (1, 5, 2)
    assert ka.adjoint(layer)(y, output_size=five).shape == (1, 5, 2)


@pytest.mark.parametrize(
    "given",
    [
        [(3, 2), (1, 2)],
        ((3, 2), [1, 2]),
        np.array([[3, 2], [1, 2]]),
        [np.ones((7, 3, 2), "float32"), np.ones((7, 1, 2), "float32")],
    ],
)
def test_shapes_of_several_inputs_in_every_form(given):
    y = np.ones((7, 3, 2), "float32")
    for layer in (ka.adjoint(merging(L.Add), output_size=given), ka.adjoint(merging(L.Add))):
        assert [x.shape for x in layer(y, output_size=given)] == [(7, 3, 2), (7, 1, 2)]


@pytest.mark.parametrize(
    "given", ["ab", 5, [(3, 2.5), (1, 2)], [(3, 2), "1"], np.ones((2, 2), "float32"), {"a": (3, 2)}]
)
def test_what_is_no_list_of_shapes_is_refused(given):
    y = np.ones((7, 3, 2), "float32")
    with pytest.raises(ka.SizeError, match="(?s)`output_size` takes .*Received: "):
        ka.adjoint(merging(L.Add), output_size=given)
    with pytest.raises(ka.SizeError, match="(?s)`output_size` takes .*Received: "):
        ka.adjoint(merging(L.Add))(y, output_size=given)


def test_another_number_of_inputs_is_refused():
    with pytest.raises(ka.SizeError, match="takes 2 inputs. Received: output_size of 3 shapes"):
        ka.adjoint(merging(L.Subtract))(np.ones((1, 2), "float32"), output_size=[(2,), (2,), (2,)])


@pytest.mark.parametrize("pool", [L.AveragePooling1D(2), L.GlobalAveragePooling1D()])
def test_a_pool_that_was_only_called_eagerly_says_why_it_has_no_size(pool):
    y = pool(np.ones((1, 7, 1), "float32"))
    with pytest.raises(ka.SizeError, match="pooling layers keep no size of eager calls, only of symbolic ones. Pass"):
        ka.adjoint(pool)(y)


# --- attributes of the source that are set anew


@pytest.mark.parametrize(
    "attribute, value", [("padding", "valid"), ("strides", (1, 1)), ("strides", (3, 1)), ("dilation_rate", [2, 2])]
)
def test_an_attribute_of_a_convolution_that_is_set_anew_is_followed(attribute, value):
    layer = L.Conv2D(2, 3, padding="same")
    y = layer(np.ones((1, 9, 9, 2), "float32"))
    decode = ka.adjoint(layer)
    decode(y)
    setattr(layer, attribute, value)
    size = {"strides": {"output_size": (9, 9)}}.get(attribute, {})
    x, y = np.ones((1, 9, 9, 2), "float32"), np.ones(layer.compute_output_shape((1, 9, 9, 2)), "float32")
    assert (numpy_of(decode(y, **size)) * x).sum() == pytest.approx((numpy_of(layer(x)) * y).sum(), rel=1e-4, abs=1e-4)


def test_an_equation_that_is_set_anew_is_followed():
    layer = L.EinsumDense("ab,bc->ac", 2)
    layer(np.ones((1, 2), "float32"))
    decode = ka.adjoint(layer)
    layer.equation = "ab,cb->ac"
    np.testing.assert_allclose(numpy_of(decode(np.eye(2))), numpy_of(layer(np.eye(2))).T, rtol=1e-6)


def test_an_attribute_of_a_pool_that_is_set_anew_is_followed():
    pool = L.AveragePooling1D(2)
    y = np.ones((1, 3, 1), "float32")
    decode = ka.adjoint(pool, output_size=6)
    assert numpy_of(decode(y)).sum() == 3
    pool.strides, pool.pool_size = (3,), (3,)
    with pytest.raises(ka.SizeError, match="9 to 11"):
        decode(y)
    assert decode(y, output_size=9).shape == (1, 9, 1)


@pytest.mark.parametrize(
    "attribute, value", [("padding", "VALID"), ("strides", (1,)), ("data_format", "channels_first")]
)
def test_an_attribute_that_cannot_be_read_is_refused(attribute, value):
    layer = L.Conv2D(2, 3, padding="same")
    y = layer(np.ones((1, 9, 9, 2), "float32"))
    decode = ka.adjoint(layer)
    decode(y)
    setattr(layer, attribute, value)
    with pytest.raises(ka.TieError, match="Received: "):
        decode(y)


@pytest.mark.any_backend
@pytest.mark.parametrize("called", ["before", "after", "never"])
@pytest.mark.parametrize("groups, attribute, value", [(1, "groups", 2), (2, "groups", 1), (1, "kernel_size", (5, 5))])
def test_what_the_kernel_of_a_convolution_was_built_for_cannot_be_set_anew(groups, attribute, value, called):
    layer = L.Conv2D(4, 3, padding="same", groups=groups)
    y = layer(np.ones((1, 9, 9, 4), "float32"))
    decode = None if called == "never" else ka.adjoint(layer)
    if called == "before":
        decode(y)
    setattr(layer, attribute, value)
    for _ in range(2):  # refused again after it was refused
        for given in (y, keras.Input(y.shape[1:])):
            with pytest.raises(ka.TieError, match="Build a new layer .*Received: "):
                (decode or ka.adjoint(layer))(given)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "layer, shape",
    [
        (L.Conv2DTranspose(4, 3), (4, 4, 4)),
        (L.UpSampling2D(2), (4, 4, 4)),
        (L.GlobalAveragePooling2D(), (4, 4, 4)),
        (L.AveragePooling2D(2), (4, 4, 4)),
        (L.Flatten(), (4, 4)),
    ],
)
def test_another_data_format_is_refused_by_every_adjoint(layer, shape):
    x = keras.Input(shape)
    y = layer(x)
    decode = ka.adjoint(layer)
    decode(np.ones((1, *y.shape[1:]), "float32"))
    layer.data_format = "channels_first"
    for given in (np.ones((1, *y.shape[1:]), "float32"), keras.Input(y.shape[1:])):
        with pytest.raises(ka.TieError, match="another `data_format`"):
            decode(given)


@pytest.mark.any_backend
def test_an_adjoint_of_one_size_says_that_it_takes_none():
    source = keras.layers.Conv2DTranspose(3, 3, strides=2)
    source.build((None, 5, 4, 2))
    y = np.ones((1, 11, 9, 3), "float32")
    for each in (y, keras.Input(y.shape[1:])):
        with pytest.raises(ValueError, match=r"takes no `output_size`.*Received: output_size=\(5, 4\)"):
            ka.adjoint(source)(each, output_size=(5, 4))
