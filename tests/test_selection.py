"""Layers that select: maxima and minima of tensors, and adaptive max pooling, whose windows differ in size."""

import keras
import numpy as np
import pytest
from autodiff import gradients
from encoders import EXACT, assert_close, values
from helpers import RARELY_JAX, compiled, in_turn
from keras import ops, tree
from layer_list import randomize

import keras_adjoint as ka

L = keras.layers
BACKEND = keras.backend.backend()
ADAPTIVE = pytest.mark.skipif(not hasattr(L, "AdaptiveMaxPooling1D"), reason="this version of Keras has none")


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype("float32")


def merging(layer, *shapes):
    return layer, [numbers(*shape, seed=number) for number, shape in enumerate(shapes)]


def adaptive(rank, size, data_format="channels_last"):
    """A pool of a random picture, with windows of several sizes."""
    sizes = (7, 5, 6)[:rank]
    shape = (*sizes, 3) if data_format == "channels_last" else (3, *sizes)
    return getattr(L, f"AdaptiveMaxPooling{rank}D")(size, data_format=data_format), numbers(*shape)


CASES = {
    "maximum": lambda: merging(L.Maximum(), (4, 3), (4, 3)),
    "minimum": lambda: merging(L.Minimum(), (4, 3), (4, 3)),
    "of three": lambda: merging(L.Maximum(), (5,), (5,), (5,)),
    "broadcast": lambda: merging(L.Minimum(), (4, 3), (1, 3), (3,)),
}
CASES |= {
    f"adaptive, {rank} axes, {data_format}": lambda rank=rank, data_format=data_format: adaptive(rank, 3, data_format)
    for rank in (1, 2, 3)
    for data_format in ("channels_last", "channels_first")
    if hasattr(L, "AdaptiveMaxPooling1D")
}


def tensors(given):
    return tree.map_structure(ops.convert_to_tensor, given)


def matrices(layer, adjoint, given):
    """(A, Aᵀ) for the switches of one sample, by columns."""
    one = tree.map_structure(lambda x: x[:1], given)
    flat = tree.flatten(one)
    y = values(layer(tensors(one)))

    def repeated(count):
        return tree.map_structure(lambda x: ops.convert_to_tensor(np.repeat(x, count, axis=0)), one)

    eye = np.eye(y.size, dtype="float32").reshape(-1, *y.shape[1:])
    found = tree.flatten(adjoint(ops.convert_to_tensor(eye), switches=repeated(y.size)))
    transposed = np.concatenate([values(part).reshape(y.size, -1) for part in found], axis=1)
    total = sum(x.size for x in flat)
    parts, start = [], 0
    for x in flat:
        part = np.zeros((total, x.size), "float32")
        part[start : start + x.size] = np.eye(x.size)
        parts.append(ops.convert_to_tensor(part.reshape(-1, *x.shape[1:])))
        start += x.size
    x = parts if isinstance(given, list) else parts[0]
    forward = values(adjoint.apply_forward(x, repeated(total))).reshape(total, -1)
    return forward.T, transposed.T


@pytest.mark.parametrize("name", in_turn(CASES, backends=lambda name: RARELY_JAX))
def test_it_is_the_adjoint_and_the_gradient_of_the_selection(name):
    layer, given = CASES[name]()
    y = layer(tensors(given))
    adjoint = ka.adjoint(layer)
    found = tree.flatten(
        compiled(lambda y, *x: tree.flatten(adjoint(y, switches=list(x) if len(x) > 1 else x[0])))(
            y, *tensors(tree.flatten(given))
        )
    )
    expected = gradients(
        lambda *x: ops.sum(layer(list(x) if len(x) > 1 else x[0]) ** 2) / 2, tensors(tree.flatten(given))
    )
    for one, other in zip(found, expected, strict=True):
        assert_close(values(one), other)
    forward, transposed = matrices(layer, adjoint, given)
    assert forward.any()
    assert_close(transposed, forward.T)
    again = ka.adjoint(adjoint)
    assert_close(values(again(tensors(given), switches=tensors(given))), values(y))


def encoder(kind):
    """A network of two maxima."""
    x = keras.Input((7, 6, 3))
    y = L.Conv2D(4, 2)(x)
    if kind == "layers":
        y = L.Minimum()([L.Maximum()([y, L.Conv2D(4, 2)(x)]), L.Conv2D(4, 2)(x)])
    elif kind == "operations":
        y = ops.minimum(ops.maximum(y, L.Conv2D(4, 2)(x)), L.Conv2D(4, 2)(x))
    else:
        y = L.AdaptiveMaxPooling2D((4, 3))(y)
    model = keras.Model(x, L.Conv2D(2, 2)(y), name="encoder")
    for layer in model.layers:
        if layer.weights:
            randomize(layer)
    return model


KINDS = ["layers", "operations", pytest.param("adaptive", marks=ADAPTIVE)]


@pytest.mark.parametrize("kind", KINDS)
def test_by_switches_the_backward_pass_is_the_gradient(kind, tmp_path):
    model, x = encoder(kind), numbers(7, 6, 3)
    (expected,) = gradients(lambda x: ops.sum(model(x) ** 2) / 2, [ops.convert_to_tensor(x)])
    autoencoder = ka.autoencoder(model, **EXACT)
    autoencoder.save(tmp_path / "m.keras")
    for each in (autoencoder, keras.saving.load_model(tmp_path / "m.keras"), ka.clone_tied(autoencoder)):
        assert_close(values(each(x)), expected)
    with pytest.raises(ValueError, match='max pooling by "switches".*`pooling="spread"` or `pooling="average"`'):
        ka.mirror(model, pooling="switches")


@pytest.mark.parametrize("choice", ["spread", "average"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.any_backend
def test_without_switches(kind, choice):
    model = encoder(kind)
    assert ka.mirror(ka.mirror(model, pooling=choice), pooling=choice).output_shape == model.output_shape
    assert ka.autoencoder(model, pooling=choice)(numbers(7, 6, 3)).shape == (2, 7, 6, 3)


@pytest.mark.parametrize("kind", ["layers", "operations"])
def test_what_one_of_several_had_given_is_given_to_all_or_shared(kind):
    a, b = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([a, b], L.Maximum()([a, b]) if kind == "layers" else ops.maximum(a, b))
    y = numbers(3)
    for part in ka.mirror(model)(y):
        assert_close(values(part), y)
    for part in ka.mirror(model, pooling="average")(y):
        assert_close(values(part), y / 2)


@ADAPTIVE
@pytest.mark.parametrize(
    "name", in_turn([name for name in CASES if "adaptive" in name], backends=lambda name: RARELY_JAX)
)
def test_adaptive_pools_are_spread_and_averaged(name):
    layer, given = CASES[name]()
    x = keras.Input(given.shape[1:])
    model, y = keras.Model(x, layer(x)), values(layer(given))
    mean = getattr(L, type(layer).__name__.replace("Max", "Average"))(layer.output_size, data_format=layer.data_format)
    mean(x)
    assert_close(values(ka.mirror(model, pooling="average")(y)), values(ka.adjoint(mean)(y)))
    first = 1 if layer.data_format == "channels_last" else 2
    expected = y
    for axis, size in enumerate(given.shape[first : first + len(layer.output_size)], first):
        expected = np.take(expected, [position * y.shape[axis] // size for position in range(size)], axis=axis)
    assert_close(values(ka.mirror(model)(y)), expected)


def test_of_equal_values_it_is_the_gradient_of_the_backend():
    layer, x = L.Maximum(), np.ones((1, 2), "float32")
    layer([x, x])
    found = [values(part)[0, 0] for part in ka.adjoint(layer)(x, switches=[x, x])]
    assert found == ([1.0, 0.0] if BACKEND == "tensorflow" else [0.5, 0.5])


@pytest.mark.any_backend
def test_other_switches_are_refused():
    layer = L.Maximum()
    a, b, y = numbers(4, 3), numbers(4, 3), numbers(4, 3)
    layer([a, b])
    adjoint = ka.adjoint(layer)
    for switches in (a, [a], [a, b[:, :2]], [a[:, 0], b[:, 0]]):
        with pytest.raises(ka.SizeError, match="Pass what the source was called with. Received: y.shape="):
            adjoint(y, switches=switches)
    assert len(adjoint(y, switches=[a, b])) == 2


@ADAPTIVE
@pytest.mark.any_backend
def test_check_adjoint_knows_them():
    for name in ("of three", "adaptive, 2 axes, channels_last"):
        layer, given = CASES[name]()
        layer(tensors(given))
        shape = [x.shape for x in given] if isinstance(given, list) else given.shape
        assert ka.check_adjoint(layer, ka.adjoint(layer), input_shape=shape)


@ADAPTIVE
@pytest.mark.parametrize("size, outputs", [(5, 1), (1, 1), (1, 3), (2, 3), (4, 3)])
def test_the_gradient_of_adaptive_pools_of_any_size(size, outputs):
    """On TensorFlow Keras' own differentiates pools without outputs, whose gradients are no numbers or end the process."""
    x = keras.Input((size, 2))
    autoencoder = ka.autoencoder(keras.Model(x, L.AdaptiveMaxPooling1D(outputs)(x)), **EXACT)
    numbers_of_x = numbers(size, 2)
    expected = np.zeros_like(numbers_of_x)
    for j in range(outputs):
        window = slice(j * size // outputs, -(-(j + 1) * size // outputs))
        part = numbers_of_x[:, window]
        expected[:, window] += np.where(part == part.max(axis=1, keepdims=True), part, 0)
    assert_close(values(autoencoder(numbers_of_x)), expected)
