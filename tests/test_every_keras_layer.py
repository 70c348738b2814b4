"""Every layer of Keras in a small model: its adjoint, mirror and autoencoder are right, or refused by an error of ours.

Layers are found by introspection, so that those of a later Keras are tested as soon as they exist.
"""

import inspect
from itertools import count

import keras
import numpy as np
import pytest
from every_layer import layer_classes, uses_of
from extent import EXHAUSTIVE
from layer_list import randomize
from operators_of_models import (
    assert_adjoint_of,
    assert_close,
    flat,
    matrix,
    model_of,
    right_or_refused,
    run,
    runs,
    saved_and_loaded,
)

import keras_adjoint as ka

L = keras.layers


# --- the ways in which a layer is used: each takes a use and returns (the layer, a model of it)


def plain(use):
    layer = use.make()
    inputs = use.arguments(lambda shape: keras.Input(shape, dtype=use.dtype))
    return layer, model_of(inputs, layer(*inputs, **use.keywords))


def by_keyword(use):
    layer = use.make()
    (x,) = use.arguments(lambda shape: keras.Input(shape, dtype=use.dtype))
    first = list(inspect.signature(layer.call).parameters)[0]
    return layer, model_of([x], layer(**{first: x}, **use.keywords))


def nested(use):
    layer, inner = plain(use)
    inputs = [keras.Input(x.shape[1:], dtype=x.dtype) for x in inner.inputs]
    return layer, model_of(inputs, inner(inputs if len(inputs) > 1 else inputs[0]))


def masked(use):
    layer = use.make()
    inputs = use.arguments(lambda shape: keras.Input(shape, dtype=use.dtype))
    behind = keras.tree.map_structure(lambda x: L.Masking()(x) if len(x.shape) > 2 else x, inputs)
    return layer, model_of(inputs, layer(*behind, **use.keywords))


def with_a_mask(use):
    layer = use.make()
    inputs = use.arguments(lambda shape: keras.Input(shape, dtype=use.dtype))
    mask = keras.Input(inputs[0].shape[1:2] if len(inputs[0].shape) > 2 else inputs[0].shape[1:], dtype="bool")
    return layer, model_of([*inputs, mask], layer(*inputs, mask=mask, **use.keywords))


def of_integers(use):
    layer = use.make()
    inputs = use.arguments(lambda shape: keras.Input(shape, dtype="int32"))
    return layer, model_of(inputs, layer(*inputs, **use.keywords))


def called_twice(use):
    layer = use.make()
    inputs = [use.arguments(lambda shape: keras.Input(shape, dtype=use.dtype)) for _ in range(2)]
    return layer, model_of(inputs, [layer(*each, **use.keywords) for each in inputs])


def of_a_fixed_batch(use):
    layer = use.make()
    inputs = use.arguments(lambda shape: keras.Input(batch_shape=(2, *shape), dtype=use.dtype))
    return layer, model_of(inputs, layer(*inputs, **use.keywords))


def of_unknown_size(use):
    layer = use.make()
    inputs = use.arguments(lambda shape: keras.Input((None, *shape[1:]), dtype=use.dtype))
    return layer, model_of(inputs, layer(*inputs, **use.keywords))


def of_a_sequential(use):
    layer = use.make()
    inputs = use.arguments(lambda shape: keras.Input(shape, dtype=use.dtype))
    return layer, keras.Sequential([*inputs, layer])


def as_a_dictionary(use):
    layer = use.make()
    inputs = use.arguments(lambda shape: keras.Input(shape, dtype=use.dtype))
    names = count()
    given = {f"{next(names)}": x for x in reversed(keras.tree.flatten(inputs))}
    outputs = keras.tree.flatten(layer(*inputs, **use.keywords))
    return layer, keras.Model(given, {f"y{number}": y for number, y in enumerate(outputs)})


def always(layer_class, use):
    return True


def one_argument(layer_class, use):
    """Keras takes a picture that is to be changed by its place alone."""
    is_preprocessing = any(base.__name__ == "BaseImagePreprocessingLayer" for base in layer_class.__mro__)
    return len(use.arguments(lambda shape: shape)) == 1 and not is_preprocessing


def one_tensor(layer_class, use):
    return len(tensors(use)) == 1


def tensors(use):
    """The shapes of the tensors that are given."""
    shapes = []
    use.arguments(shapes.append)
    return shapes


# The ways, and what a use must be like for each.
WAYS = {
    plain: always,
    by_keyword: one_argument,
    nested: always,
    masked: lambda layer_class, use: use.dtype == "float32" and any(len(shape) > 1 for shape in tensors(use)),
    with_a_mask: lambda layer_class, use: (
        one_tensor(layer_class, use) and "mask" in inspect.signature(layer_class.call).parameters
    ),
    of_integers: lambda layer_class, use: use.dtype == "float32",
    called_twice: always,
    of_a_fixed_batch: always,
    of_unknown_size: always,
    of_a_sequential: lambda layer_class, use: one_tensor(layer_class, use) and not use.keywords,
    as_a_dictionary: always,
}


# Loops over time and transforms of Fourier take seconds to compile.
SLOW = (L.RNN, L.Bidirectional, L.ConvLSTM1D, L.ConvLSTM2D, L.ConvLSTM3D, L.GRU, L.LSTM, L.SimpleRNN, L.STFTSpectrogram)


# JAX compiles each, and TensorFlow is slow.
TURNS = (*("torch",) * 5, "tensorflow", *("torch",) * 5, "jax")


def parameters():
    """Every use in every way; `make test` runs each use plainly on one of the backends, and half in another way on PyTorch."""
    for place, (name, layer_class) in enumerate(layer_classes().items()):
        for number, use in enumerate(uses_of(name, layer_class), place):
            ways = [way for way, fits in WAYS.items() if fits(layer_class, use)]
            others = [ways[1 + number // 2 % (len(ways) - 1)]] if number % 2 else []
            for way in ways if EXHAUSTIVE else [plain, *others]:
                turns = TURNS if way is plain and layer_class not in SLOW else ["torch"]
                turns = [turn for turn in turns if turn in use.only_on] or use.only_on
                title = f"{name}{', ' + use.title if use.title else ''}, {way.__name__.replace('_', ' ')}"
                yield pytest.param(use, way, id=title, marks=pytest.mark.in_turn(turns[number % len(turns)]))


def build(use, way):
    """(layer, model); no model where Keras itself refuses this way."""
    try:
        layer, model = way(use)
    except Exception:
        if way is plain:
            raise
        return use.make(), None
    for weight in () if model is None else [layer]:
        randomize(weight)
    return layer, model


def samples(use, model, number=3):
    generator = np.random.default_rng(0)
    shapes = [tuple(6 if size is None else size for size in x.shape[1:]) for x in model.inputs]
    xs = []
    for x, shape in zip(model.inputs, shapes, strict=True):
        whole = generator.integers(0, use.below, (number, *shape))
        values = whole if x.dtype != "float32" else generator.normal(size=(number, *shape))
        if x.dtype == "float32" and len(shape) > 1:
            values[:, -1] *= generator.integers(0, 2, (number, *[1] * (len(shape) - 1)))  # what a mask leaves out
        xs.append(values.astype(x.dtype))
    return xs


@pytest.mark.parametrize(("use", "way"), list(parameters()))
def test_adjoint_mirror_and_autoencoder_are_right_or_refused(use, way, tmp_path):
    layer, model = build(use, way)
    if model is None:
        pytest.skip("Keras has no such model")
    xs = samples(use, model) if use.dtype != "string" else None
    places = (layer.name, model.name)
    adjoint = None
    with right_or_refused(*places):
        adjoint = ka.adjoint(model)
    if xs is None or not runs(model, xs):
        return
    if adjoint is not None:
        check_adjoint(adjoint, model, xs, places, tmp_path)
    for make in (ka.mirror, ka.autoencoder):
        with right_or_refused(*places):
            made = make(model)
            given = xs if make is ka.autoencoder else run(model, xs)
            found = run(made, given)
            assert [y.shape[: x.ndim] for x, y in zip(xs, found, strict=True)] == [x.shape for x in xs]
            assert_close(flat(run(saved_and_loaded(made, tmp_path / "made.keras"), given)), flat(found))
    if adjoint is not None:
        with right_or_refused(*places):
            exact = ka.mirror(model, bias="none", norm="adjoint", preprocessing="adjoint", pooling="average")
            ys = run(model, xs)
            assert_close(flat(run(exact, ys)), flat(run(adjoint, ys)))


def check_adjoint(adjoint, model, xs, places, tmp_path):
    ys = run(model, xs)
    with right_or_refused(*places):
        found = run(adjoint, ys)
        if any(y.shape[: x.ndim] == x.shape and y.ndim > x.ndim for x, y in zip(xs, found, strict=True)):
            assert_adjoint_of_selection(adjoint, model, xs)
        else:
            assert_adjoint_of(adjoint, model, xs)
    with right_or_refused(*places):
        loaded = saved_and_loaded(adjoint, tmp_path / "adjoint.keras")
        assert_close(flat(run(loaded, ys)), flat(run(adjoint, ys)))
        again = ka.adjoint(loaded)
        assert_close(matrix(again, [x.shape[1:] for x in found]).T, matrix(loaded, [y.shape[1:] for y in ys]))


def assert_adjoint_of_selection(adjoint, model, xs):
    """The rows that integers select: the adjoint gives the products of y with each of them."""
    shapes = [y.shape[1:] for y in run(model, xs)]
    columns = matrix(adjoint, shapes)
    found = run(adjoint, run(model, xs))
    ends = np.cumsum([y[0].size for y in found])
    parts = [
        part.reshape(*x.shape[1:], -1, columns.shape[1])
        for part, x in zip(np.split(columns, ends[:-1]), xs, strict=True)
    ]
    for number, expected in enumerate(flat(run(model, xs))):
        selected = [rows[(*np.indices(x.shape[1:]), x[number])] for rows, x in zip(parts, xs, strict=True)]
        assert_close(sum(rows.reshape(-1, len(expected)).sum(axis=0) for rows in selected), expected)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", layer_classes())
def test_a_layer_that_was_not_called_is_refused_or_has_an_adjoint(name):
    for use in uses_of(name, layer_classes()[name]):
        layer = use.make()
        with right_or_refused(layer.name, type(layer).__name__):
            assert isinstance(ka.adjoint(layer), L.Layer)
