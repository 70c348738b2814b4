"""Wrappers around every layer whose adjoint needs a size: at two sizes, at unknown ones, against the dense matrix."""

import keras
import numpy as np
import pytest
from encoders import values
from extent import EXHAUSTIVE
from helpers import double_or_single, in_turn, matrix, operators, tolerance
from layer_list import FIRST, LAYERS, Case, randomize

import keras_adjoint as ka
from keras_adjoint.models.decisions import Kind, decide
from keras_adjoint.models.facts import facts_about_layers

L = keras.layers


@keras.saving.register_keras_serializable(package="test_distributed")
class Differences(L.Layer):
    """A linear layer without a rule."""

    def call(self, x):
        return x[:, 1:] - x[:, :-1]

    def compute_output_shape(self, shape):
        return (shape[0], None if shape[1] is None else shape[1] - 1, *shape[2:])


def distributed(layer):
    return L.TimeDistributed(layer, dtype=layer.dtype_policy)


def normalised(layer):
    return L.SpectralNormalization(layer, dtype=layer.dtype_policy)


def limited(layer):
    return ka.Lipschitz(layer, 1e6)  # which it keeps to as it is


# Each with the axes of steps.
WRAPPERS = {
    "distributed": (distributed, (2,)),
    "distributed twice": (lambda layer: distributed(distributed(layer)), (2, 1)),
    "normalised": (normalised, ()),
    "normalised, distributed": (lambda layer: distributed(normalised(layer)), (2,)),
    "with a constant": (limited, ()),
    "with a constant, distributed": (lambda layer: distributed(limited(layer)), (2,)),
    "regularised, distributed": (lambda layer: ka.Regularized(distributed(layer)), (2,)),
}


def built(case):
    layer = case.make(double_or_single(case, "float64"))
    layer.build((None, *case.shape))
    randomize(layer)
    return layer


def needs_size(case):
    wrapped = case.title.startswith(("time distributed", "spectral"))
    if case.merges or wrapped or case.title.startswith("embedding") or not case.is_built_anywhere:
        return False
    return getattr(case.adjoint(built(case)), "needs_output_size", False)


def wrappers_of(case):
    """Those that take a layer: with a constant one with a kernel, normalised one that has its channels last as well."""
    has_kernel = hasattr(built(case), "kernel")
    refused = [] if has_kernel else ["with a constant"]
    refused += [] if has_kernel and case.settings.get("data_format") != FIRST else ["normalised"]
    return [name for name in WRAPPERS if not name.startswith(tuple(refused))]


OWN = Case("without a rule", Differences, lambda dtype: Differences(dtype=dtype), (5, 2))
SIZED = [case for case in (*LAYERS, OWN) if needs_size(case)]


def pairs():
    """Every layer in every wrapper that takes it, of which `make test` runs one for each layer."""
    for number, case in enumerate(SIZED):
        names = wrappers_of(case)
        yield from ((case, name) for name in (names if EXHAUSTIVE else [names[number % len(names)]]))


def runs(parameters):
    """Of channels-first layers TensorFlow's CPU has none."""
    first = parameters.values[0].settings.get("data_format") == FIRST
    marks = [*parameters.marks, *([pytest.mark.only_on("torch", "jax")] if first else [])]
    return pytest.param(*parameters.values, id=parameters.id, marks=marks)


def backends(pair):
    return ("torch",) if pair[0].settings.get("data_format") == FIRST else TURNS


# JAX compiles the call of every step.
TURNS = ("torch", "tensorflow", "torch", "torch", "jax", "torch", "torch")
PARAMETERS = in_turn(list(pairs()), name=lambda pair: ", ".join(map(str, pair)), backends=backends)
wrapped = pytest.mark.parametrize(("case", "wrapper"), [runs(each) for each in PARAMETERS])


def shapes_of(case):
    """Shapes of two sizes."""
    if case.layer_class is L.Reshape:
        return case.shape, case.shape[::-1]
    channels = 0 if case.settings.get("data_format") == FIRST else len(case.shape) - 1
    return case.shape, tuple(size + (axis != channels) for axis, size in enumerate(case.shape))


def forward_matrix(case, layer, shape):
    """The matrix of a layer alone, at one size."""
    forward, _ = operators(case, layer, ka.adjoint(layer))
    return matrix(forward, shape, layer.compute_dtype)


def multiplied(arrays, a, shape):
    """The matrix applied to every step of an array, whose steps have the shape of the matrix's inputs."""
    steps = arrays.shape[: arrays.ndim - len(shape)]
    return arrays.reshape(*steps, -1) @ a.T


def check(found, expected, bound):
    found = values(found)
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=bound * np.abs(expected).max())


def random(*shape):
    return np.random.default_rng(0).normal(size=shape)


@wrapped
def test_at_two_sizes(case, wrapper):
    wrap, steps = WRAPPERS[wrapper]
    layer, inner, shapes = wrap(built(case)), built(case), shapes_of(case)
    xs = [keras.Input((*steps, *shape), dtype=layer.dtype) for shape in shapes]
    model = keras.Model(xs, [layer(x) for x in xs])
    ys = [random(3, *y.shape[1:]) for y in model.outputs]
    bound = 10 * tolerance(case, inner)
    every, alone = ka.adjoint(model)(ys), ka.adjoint(layer)
    for shape, x, y, found in zip(shapes, xs, ys, every, strict=True):
        a = forward_matrix(case, inner, shape)
        expected = multiplied(y, a.T, y.shape[1 + len(steps) :])
        assert tuple(found.shape) == (3, *x.shape[1:])
        check(found, expected, bound)
        one_step = alone.output_size_like(x)
        for size in (one_step, np.zeros((1, *x.shape[1:]))):
            check(alone(y, output_size=size), expected, bound)
    if ys[0].shape == ys[1].shape:
        with pytest.raises(ka.SizeError):
            alone(ys[0])
    else:
        check(alone(y), expected, bound)


@wrapped
def test_at_unknown_sizes(case, wrapper, tmp_path):
    wrap, steps = WRAPPERS[wrapper]
    inner, shapes = built(case), shapes_of(case)
    unknown = [one if one == two else None for one, two in zip(*shapes, strict=True)]
    if isinstance(inner, (L.Flatten, L.Reshape)):  # which go back to one unknown size
        first = unknown.index(None)
        shapes = shapes[:1]
        unknown = [*case.shape[:first], None, *case.shape[first + 1 :]]
    x = keras.Input((*steps, *unknown), dtype=inner.dtype)
    model = ka.autoencoder(keras.Model(x, wrap(built(case))(x)), bias="none", pooling="average")
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for shape in shapes:
        a, given = forward_matrix(case, inner, shape), random(2, *steps, *shape)
        expected = multiplied(given, a.T @ a, shape)
        for each in (model, loaded):
            found = each(given) - each(np.zeros_like(given))
            assert tuple(found.shape) == given.shape
            check(found, expected, 10 * tolerance(case, inner))


@pytest.mark.any_backend
def test_a_size_that_a_wrapper_is_called_with_later_is_seen():
    for wrap, steps in (WRAPPERS["distributed"], WRAPPERS["normalised"]):
        layer = wrap(L.Conv1D(3, 3, strides=2, padding="same"))
        y = random(1, *layer(keras.Input((*steps, 27, 2))).shape[1:])
        adjoint = ka.adjoint(layer)
        assert tuple(adjoint(y).shape) == (1, *steps, 27, 2)
        layer(keras.Input((*steps, 28, 2)))
        with pytest.raises(ka.SizeError, match="27 or 28"):
            adjoint(y)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "size", [(9, 7), [9, 7], (1, 9, 7, 2), (1, 5, 9, 7, 2), np.array([9, 7]), np.zeros((1, 5, 9, 7, 2))]
)
def test_the_forms_of_a_size(size):
    layer = distributed(L.Conv2D(3, 3, strides=2, padding="same"))
    layer.build((None, 5, None, None, 2))
    y = np.ones((1, 5, 5, 4, 3), "float32")
    assert tuple(ka.adjoint(layer)(y, output_size=size).shape) == (1, 5, 9, 7, 2)
    assert ka.adjoint(layer)(keras.Input(y.shape[1:]), output_size=size).shape == (None, 5, 9, 7, 2)
    if getattr(size, "ndim", 1) == 1 and len(size) < 5:
        assert tuple(ka.adjoint(layer, output_size=size)(y).shape) == (1, 5, 9, 7, 2)


@pytest.mark.any_backend
def test_a_tensor_without_steps_is_refused():
    layer = distributed(L.Dense(3))
    layer.build((None, 5, 4))
    with pytest.raises(ValueError, match=r"axis of steps .*Received: a tensor of shape \(2, 3\)"):
        ka.adjoint(layer)(np.ones((2, 3), "float32"))


@pytest.mark.any_backend
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_it_is_checked_at_any_size_without_bias_and_activation(wrapper):
    wrap, steps = WRAPPERS[wrapper]
    layer = wrap(L.Conv1D(3, 3, strides=2, activation="relu", bias_initializer="ones"))
    for size in (7, 8):
        layer(keras.Input((*steps, size, 2)))
    for shape in (None, (2, *steps, 8, 2)):
        assert ka.check_adjoint(layer, input_shape=shape)
    wrong = ka.adjoint(layer, linear_part=True, output_size=7)
    assert not ka.check_adjoint(layer, lambda y: 1.1 * wrong(y))


@pytest.mark.any_backend
def test_maxima_go_back_where_they_were_at_every_step():
    layer = distributed(L.MaxPooling1D(3, 2))
    x = random(2, 2, 8, 3).astype("float32")
    y, pool = values(layer(x)), L.MaxPooling1D(3, 2)
    found = values(ka.adjoint(layer)(y, switches=x))
    for step in range(2):
        expected = ka.adjoint(pool)(y[:, step], switches=x[:, step])
        np.testing.assert_allclose(found[:, step], values(expected))
    assert ka.check_adjoint(layer)


@pytest.mark.any_backend
def test_it_is_tied_and_counts_what_the_adjoint_inside_does():
    layer = distributed(L.Conv1D(3, 3))
    layer.build((None, 2, 8, 2))
    tied, copied = ka.adjoint(layer), ka.adjoint(layer, tied=False)
    assert ka.is_tied(tied) and ka.is_tied(tied, layer) and not ka.is_tied(copied)
    assert tied.count_params() == 0 and copied.count_params() == 18
    assert ka.adjoint(layer, bias="own").count_params() == 2


@pytest.mark.any_backend
@pytest.mark.parametrize("make", [lambda: L.LSTM(2), lambda: L.Bidirectional(L.GRU(2, return_sequences=True))])
def test_what_is_not_linear_at_every_step_is_refused_with_advice_that_works(make):
    layer = L.TimeDistributed(make(), name="each")
    x = keras.Input((2, 4, 3))
    encoder = keras.Model(x, layer(x))
    with pytest.raises(ka.NoRuleError, match="it is not linear"):
        ka.adjoint(layer)
    with pytest.raises(ka.NoRuleError, match="has neither an adjoint nor a policy.*'each': \"gradient\""):
        ka.mirror(encoder)
    assert ka.autoencoder(encoder, activation={"each": "gradient"}).output_shape == encoder.input_shape


@pytest.mark.any_backend
def test_the_layer_inside_is_undone_as_its_wrapper_is():
    x = keras.Input((2, 8, 3))
    y = L.TimeDistributed(L.Dense(4, name="exact"))(x)
    encoder = keras.Model(x, L.TimeDistributed(L.LayerNormalization(name="policy"))(y))
    facts = facts_about_layers(encoder, decide(encoder))
    assert {one.layer.rpartition("/")[2]: one.kind for one in facts if "/" in one.layer} == {
        "exact": Kind.EXACT,
        "policy": Kind.POLICY,
    }
    assert {decision.main.layer.source.name for decision in decide(encoder)[:1]} == {"exact"}
    ka.plot_mirror(encoder)


@pytest.mark.any_backend
@pytest.mark.parametrize("make", [lambda: L.Dense(3), lambda: L.Conv1D(3, 2, strides=2)], ids=["dense", "conv"])
def test_the_adjoint_of_an_adjoint_at_steps_of_steps_is_what_the_layer_does(make):
    twice = L.TimeDistributed(L.TimeDistributed(make()))
    twice.build((None, 2, 3, 5, 2))
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 5, 2)).astype("float32")
    second = ka.adjoint(ka.adjoint(twice))
    np.testing.assert_allclose(values(second(x)), values(twice(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("axes", [1, 2])
def test_a_normalisation_that_was_adapted_on_more_axes_than_a_step_has_is_refused(axes):
    """It gives steps an axis more, along which Keras takes the samples of all steps for one step's."""
    norm = L.Normalization(axis=-1)
    norm.adapt(random(8, *(2,) * axes, 3))
    each = distributed(norm)
    each.build((None, 2, 3))
    with pytest.raises(ka.NoRuleError, match="broadcasts its input.*Give it an input of"):
        ka.adjoint(each)
