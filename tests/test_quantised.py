"""Sources that were quantised: their adjoints read the kernel that they compute with now, on its own and after loading."""

import keras
import numpy as np
import pytest
from encoders import values
from helpers import RARELY_JAX, matrix
from layer_list import KERAS

import keras_adjoint as ka

L = keras.layers
MAKE = {
    "dense": (lambda: L.Dense(5), (6,)),
    "dense, even": (lambda: L.Dense(4), (7,)),
    "einsum": (lambda: L.EinsumDense("abc,cd->abd", (3, 5), bias_axes="d"), (3, 6)),
    "einsum of several axes": (lambda: L.EinsumDense("abc,cde->abde", (2, 3, 5)), (2, 6)),
    "einsum, kernel turned": (lambda: L.EinsumDense("abc,dc->abd", (3, 5)), (3, 6)),
    "embedding": (lambda: L.Embedding(7, 5), (2,)),
}
INT4 = pytest.mark.skipif(KERAS < (3, 15), reason="Keras packed the rows of kernels")


def blocks():
    return keras.quantizers.Int4QuantizationConfig(block_size=4)


WAYS = {
    "int8": lambda layer: layer.quantize("int8"),
    "int4": lambda layer: layer.quantize("int4"),
    "int4 by blocks": lambda layer: layer.quantize(config=blocks()),
    "float8": lambda layer: layer.quantize("float8"),
}
NAMES = [(name, way) for name in MAKE for way in WAYS if (name, way) != ("embedding", "float8")]  # which Keras lacks


def cases(names=tuple(MAKE)):
    """Parameters of a test; `make test` runs each on one backend."""
    chosen = [(name, way) for name, way in NAMES if name in names]
    return [
        pytest.param(*case, marks=[pytest.mark.in_turn(RARELY_JAX[number % 6]), *([INT4] if "int4" in case[1] else [])])
        for number, case in enumerate(chosen)
    ]


def made(name):
    make, shape = MAKE[name]
    layer = make()
    layer(keras.Input(shape, dtype="int32" if name == "embedding" else "float32"))
    for weight in layer.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    return layer, shape


def forward_of(layer, shape):
    """The matrix of the layer without its bias; units are not rounded where inputs are quantised."""
    if isinstance(layer, L.Embedding):
        return np.kron(np.eye(*shape), values(layer(np.arange(layer.input_dim))).T)
    zero = layer(np.zeros((1, *shape), "float32"))
    return matrix(lambda x: layer(x) - zero, shape, "float32")


def assert_adjoint(adjoint, layer, shape, mode):
    expected = forward_of(layer, shape).T
    found = matrix(adjoint, tuple(layer.compute_output_shape((1, *shape))[1:]), "float32")
    tolerance = 0.1 if mode == "float8" else 1e-5  # there the forward rounds its kernel to three binary digits
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name, way", cases())
def test_the_adjoint_reads_a_kernel_that_is_quantised_before_or_after(name, way):
    layer, shape = made(name)
    before = ka.adjoint(layer)
    WAYS[way](layer)
    for adjoint in (before, ka.adjoint(layer)):
        assert_adjoint(adjoint, layer, shape, way)


@pytest.mark.parametrize("name, way", cases())
def test_a_copy_of_a_quantised_source_and_one_from_before(name, way):
    layer, shape = made(name)
    kept = ka.adjoint(layer, tied=False)
    exact = forward_of(layer, shape).T
    WAYS[way](layer)
    assert_adjoint(ka.adjoint(layer, tied=False), layer, shape, way)
    outputs = tuple(layer.compute_output_shape((1, *shape))[1:])
    np.testing.assert_allclose(matrix(kept, outputs, "float32"), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name, way", cases(["dense", "einsum", "embedding"]))
def test_a_quantised_source_is_saved_with_its_tie(name, way, tmp_path):
    layer, shape = made(name)
    WAYS[way](layer)
    x = keras.Input(shape, dtype="int32" if name == "embedding" else "float32")
    y = layer(x)
    model = keras.Model(x, ka.adjoint(layer)(y))
    model.save(tmp_path / "m.keras")
    numbers = np.random.default_rng(1).integers(0, 6, size=(2, *shape))
    numbers = numbers.astype("int32" if name == "embedding" else "float32")
    for each in (keras.saving.load_model(tmp_path / "m.keras"), ka.clone_tied(model)):
        assert ka.is_tied(each)
        np.testing.assert_allclose(values(each(numbers)), values(model(numbers)), rtol=1e-4, atol=1e-4)


@pytest.mark.any_backend
@pytest.mark.parametrize("way", ["int8", "float8"])
def test_clones_of_sequential_models_that_were_quantised(way):
    """Their layers were made inside of a model, so that their variables' paths begin with its name."""
    encoder = keras.Sequential([keras.Input((3, 6)), L.Dense(4), L.EinsumDense("abc,cd->abd", (3, 5))])
    autoencoder = ka.autoencoder(encoder)
    WAYS[way](encoder)
    for model in (encoder, autoencoder):
        x = np.random.default_rng(1).normal(size=(2, 3, 6)).astype("float32")
        np.testing.assert_array_equal(values(ka.clone_tied(model)(x)), values(model(x)))


@INT4
@pytest.mark.in_turn("torch")
@pytest.mark.parametrize("way", ["int8", "int4", "int4 by blocks"])
@pytest.mark.parametrize(
    "name", [name for name in MAKE if "turned" not in name]
)  # where Keras' own adapters do not fit
def test_adapters_are_added_to_a_quantised_kernel(name, way):
    layer, shape = made(name)
    WAYS[way](layer)
    layer.enable_lora(2)
    weight = next(weight for weight in layer.trainable_weights if weight.path.endswith("_b"))
    weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    assert_adjoint(ka.adjoint(layer), layer, shape, "float8" if way == "int8" else way)


@pytest.mark.any_backend
def test_keras_quantises_no_convolution():
    """Where it does one day, reading its kernel is to be thought of."""
    conv = L.Conv2D(4, 3)
    conv.build((None, 9, 9, 2))
    with pytest.raises(NotImplementedError):
        conv.quantize("int8")
