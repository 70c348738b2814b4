"""Integers inside of a graph: moved and made floats they are linear; casts to them, and what calculates with them, are not."""

import keras
import numpy as np
import pytest
from every_layer import layer_classes, uses_of
from keras import layers, ops, tree

import keras_adjoint as ka

GRADIENT = {
    "activation": "gradient",
    "gates": "gradient",
    "norm": "adjoint",
    "pooling": "switches",
    "preprocessing": "adjoint",
    "bias": "none",
}


def dense(units=2):
    return layers.Dense(units, kernel_initializer="random_normal")


ROUNDED = {
    "cast there and back": lambda x: ops.cast(ops.cast(x, "int32"), "float32"),
    "cast and a layer": lambda x: dense()(ops.cast(3 * x, "int32")),
    "moved": lambda x: dense()(ops.flip(ops.transpose(ops.cast(x, "int16"), (0, 1)), axis=1)),
    "sum": lambda x: ops.cast(ops.sum(ops.cast(x, "int32"), axis=1, keepdims=True), "float32"),
    "beside a path of floats": lambda x: x + ops.cast(ops.cast(x, "bool"), "float32"),
    "condition": lambda x: x + ops.cast(x > 0.5, "float32"),
}
BESIDE_IDENTITY = ("beside a path of floats", "condition")
LAYERS_OF_INTEGERS = {
    "identity": lambda x: dense()(layers.Identity(dtype="int32")(x)),
    "add": lambda x: layers.Add(dtype="int32")([x, x]),
    "concatenate": lambda x: layers.Concatenate(dtype="uint8")([x, x]),
}
WRAPPING = {
    "product": lambda x: ops.cast(x * 2, "float32"),
    "sum": lambda x: ops.cast(x + x, "float32"),
    "layer": lambda x: dense()(layers.Add()([x, x])),
    "average": lambda x: dense()(layers.Average()([x, x])),
    "behind a layer that announces floats": lambda x: dense()(layers.Subtract()([layers.Dropout(0.1)(x), x])),
    "narrower": lambda x: ops.cast(ops.cast(x, "int8"), "float32"),
}
EXACT = {
    "scaled": lambda x: ops.cast(x, "float32") / 255.0,
    "moved": lambda x: dense()(layers.Reshape((3,))(layers.Reshape((3, 1))(ops.flip(x, axis=1)))),
    "joined": lambda x: layers.Rescaling(0.5)(layers.Concatenate()([x, x])),
    "wider": lambda x: dense()(ops.cast(ops.cast(x, "int32"), "float32")),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_what_rounds_floats_is_refused_and_has_no_gradient(name):
    x = keras.Input((3,))
    model = keras.Model(x, ROUNDED[name](x))
    with pytest.raises(ka.NoRuleError, match="Received: "):
        ka.adjoint(model)
    values = np.array([[0.7, -1.2, 2.1], [3.0, 0.2, -0.4]], "float32")
    found = ops.convert_to_numpy(ka.autoencoder(model, **GRADIENT)(values))
    through_identity = ops.convert_to_numpy(model(values)) if name in BESIDE_IDENTITY else np.zeros_like(values)
    np.testing.assert_allclose(found, through_identity, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS_OF_INTEGERS)
def test_a_layer_that_computes_in_integers_is_refused(name):
    x = keras.Input((3,))
    model = keras.Model(x, LAYERS_OF_INTEGERS[name](x))
    for make in (ka.adjoint, ka.mirror):
        with pytest.raises(ka.NoRuleError, match="Received: "):
            make(model)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "make", [layers.Flatten, lambda **o: layers.Rescaling(2.0, **o), lambda **o: layers.Reshape((3, 1), **o)]
)
def test_a_single_layer_of_integers_is_refused(make):
    layer = make(dtype="int32")
    layer(np.ones((1, 3), "float32"))
    with pytest.raises(ka.NoRuleError, match="Received: dtype='int32'"):
        ka.adjoint(layer)


@pytest.mark.parametrize("name", WRAPPING)
def test_what_calculates_with_integers_is_refused(name):
    x = keras.Input((3,), dtype="uint8")
    with pytest.raises(ka.NoRuleError, match="wrap around"):
        ka.adjoint(keras.Model(x, WRAPPING[name](x)))


@pytest.mark.parametrize("name", EXACT)
def test_integers_that_become_floats_first_are_right(name):
    x = keras.Input((3,), dtype="uint8")
    model = keras.Model(x, EXACT[name](x))
    matrix = ops.convert_to_numpy(model(np.eye(3, dtype="uint8")))
    transpose = ops.convert_to_numpy(ka.adjoint(model)(np.eye(matrix.shape[1], dtype="float32")))
    np.testing.assert_allclose(transpose, matrix.T, rtol=1e-6)


def test_booleans_that_become_floats_are_right():
    x = keras.Input((3,), dtype="bool")
    model = keras.Model(x, dense()(ops.cast(x, "float32")))
    matrix = ops.convert_to_numpy(model(np.eye(3, dtype="bool")))
    transpose = ops.convert_to_numpy(ka.adjoint(model)(np.eye(2, dtype="float32")))
    np.testing.assert_allclose(transpose, matrix.T, rtol=1e-6)


OF_ONE_TENSOR = {
    f"{name}, {number}": use
    for name, layer_class in layer_classes().items()
    for number, use in enumerate(uses_of(name, layer_class))
    if use.dtype == "float32" and len(use.arguments(lambda shape: shape)) == 1 and not isinstance(use.inputs, list)
}


@pytest.mark.parametrize("name", OF_ONE_TENSOR)
@pytest.mark.any_backend
def test_a_sum_behind_any_layer_that_gives_integers_is_refused(name):
    use = OF_ONE_TENSOR[name]
    x = keras.Input(use.inputs, dtype="uint8")
    layer = use.make()
    try:
        first, *_ = tree.flatten(layer(x, **use.keywords))
        model = keras.Model(x, layers.Add()([first, first]))
        found = model(np.full((1, *use.inputs), 1, "uint8"))
    except Exception:
        return  # Keras has no such model
    if "int" in keras.backend.standardize_dtype(found.dtype):
        with pytest.raises(ka.NoRuleError, match="Received: "):
            ka.adjoint(model)
        with pytest.raises(ka.NoRuleError, match="Received: "):
            ka.mirror(model)


@pytest.mark.any_backend
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_upsampling_of_integers_is_right_or_refused(interpolation):
    x = keras.Input((2, 2, 1), dtype="uint8")
    model = keras.Model(x, layers.Rescaling(0.5)(layers.UpSampling2D(2, interpolation=interpolation)(x)))
    if interpolation == "bilinear":
        with pytest.raises(ka.NoRuleError, match="Received: UpSampling2D from uint8"):
            ka.adjoint(model)
    else:
        found = ops.convert_to_numpy(ka.adjoint(model)(np.ones((1, 4, 4, 1), "float32")))
        np.testing.assert_allclose(found, np.full((1, 2, 2, 1), 2.0))


@pytest.mark.any_backend
def test_products_of_integers_that_wrap_around_are_seen_where_there_is_no_rule():
    x = keras.Input((3,), dtype="uint8")
    model = keras.Model(x, layers.Lambda(lambda t: ops.cast(20 * t, "float32"))(x))
    with pytest.raises(ka.NoRuleError, match="of integers of uint8 it gives something else than of floats"):
        ka.adjoint(model)
