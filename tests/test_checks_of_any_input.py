"""The adjoint test with whatever it is given: numbers that are not finite, any shapes, integers, options without sense."""

import math
import re

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops

import keras_adjoint as ka
from keras_adjoint.doctor.models.copies import largest_distance
from keras_adjoint.doctor.models.outputs import largest_difference
from keras_adjoint.ops.dot_test import residual_of
from keras_adjoint.testing.diagnosis import MISTAKES, Evidence
from keras_adjoint.testing.pairs import Pair
from keras_adjoint.testing.probes import Probe

L = keras.layers


def dense(kernel=None, **options):
    layer = L.Dense(3, use_bias=False, **options)
    layer.build((None, 5))
    if kernel is not None:
        layer.kernel.assign(kernel)
    return layer


ONE_NAN = np.where(np.eye(5, 3) * np.arange(3) == 2, np.nan, 1.0)
BACKWARDS = {
    "NaN": lambda kernel: lambda y: ops.matmul(y, ops.transpose(kernel)) * np.nan,
    "infinity": lambda kernel: lambda y: ops.matmul(y, ops.transpose(kernel)) * np.inf,
    "one NaN": lambda kernel: lambda y: ops.matmul(y, ops.transpose(kernel * ONE_NAN.astype("float32"))),
    "the root": lambda kernel: lambda y: ops.sqrt(ops.matmul(y, ops.transpose(kernel))),
}


@pytest.mark.parametrize("name", BACKWARDS)
def test_backward_that_gives_numbers_that_are_not_finite_fails(name):
    layer = dense()
    report = ka.check_adjoint(layer, BACKWARDS[name](layer.kernel))
    assert not report and report.residual == math.inf
    assert "B gives numbers that are not finite" in report.diagnosis
    with pytest.raises(AssertionError, match="not finite"):
        ka.assert_adjoint(layer, BACKWARDS[name](layer.kernel))


@pytest.mark.parametrize(
    "layer",
    [dense(np.full((5, 3), np.nan)), dense(np.full((5, 3), 3e38)), dense(np.full((5, 3), 6e4), dtype="float16")],
    ids=["NaN", "overflow", "overflow in half precision"],
)
def test_forward_that_gives_numbers_that_are_not_finite_fails(layer):
    for report in (ka.check_adjoint(layer), ka.check_adjoint(layer, lambda y: ops.ones((2, 5), y.dtype))):
        assert not report and "A gives numbers that are not finite" in report.diagnosis


def test_rule_that_gives_numbers_that_are_not_finite_is_refused():
    class Halved(keras.layers.Layer):
        def call(self, x):
            return 0.5 * x

    ka.register_rule(Halved)(lambda source: L.Lambda(lambda y: y * np.nan))
    layer = Halved()
    layer.build((None, 3))
    with pytest.raises(ka.NoRuleError, match="not finite"):
        ka.adjoint(layer)


def test_residual_is_the_same_at_every_size_and_sees_what_only_one_of_the_two_gives():
    x, y, forward_x, backward_y = np.random.default_rng(0).normal(size=(4, 1, 50))
    expected = residual_of(forward_x, y, x, backward_y)
    for size in (2.0**-900, 2.0**900):
        assert residual_of(size * forward_x, y, x, size * backward_y) == pytest.approx(expected, rel=1e-12)
    zero = np.zeros_like(x)
    assert residual_of(zero, y, x, zero) == 0
    for size in (1e-300, 1e-30, 1.0):
        assert residual_of(zero, y, x, size * backward_y) > 1e-3
    assert residual_of(1e-300 * forward_x, y, x, 1e300 * backward_y) == math.inf


def test_repair_is_not_proven_by_numbers_that_are_not_finite():
    one, nan, inf = np.ones(3), np.array([1, np.nan, 1]), np.array([1, np.inf, 1])
    assert largest_difference([one, one], [one, nan]) == largest_difference([inf], [one]) == math.inf
    assert largest_difference([nan, inf], [nan, inf]) == 0
    assert largest_difference([2 * nan], [3 * nan]) == 0.5


def test_copies_with_weights_of_nan_are_the_same_only_if_both_have_them():
    one, other = L.Dense(3), L.Dense(3)
    for layer in (one, other):
        layer.build((None, 5))
        layer.kernel.assign(np.ones((5, 3)))
    other.bias.assign([0, np.nan, 0])
    assert largest_distance(one, other, with_bias=True) == largest_distance(other, one, with_bias=True) == math.inf
    assert largest_distance(one, other, with_bias=False) == largest_distance(other, other, with_bias=True) == 0


def product(matrix, shape):
    return lambda x: (x.reshape(len(x), -1) @ matrix).reshape(-1, *shape[1:])


def test_diagnoses_raise_nothing_whatever_the_shapes():
    generator = np.random.default_rng(0)
    for _ in range(60):
        x_shape, y_shape = ((2, *generator.integers(1, 5, generator.integers(0, 5))) for _ in range(2))
        matrix = generator.normal(size=(math.prod(x_shape[1:]), math.prod(y_shape[1:])))
        pair = Pair(product(matrix, y_shape), product(matrix[::-1].T, x_shape))
        of_x, of_y = Probe(x_shape, "float32"), Probe(y_shape, "float32")
        x, y = of_x.random(generator), of_y.random(generator)
        evidence = Evidence(pair, of_x, of_y, x, y, pair.forward(x), pair.backward(y), "float32", 1e-6)
        for mistake in MISTAKES:
            assert isinstance(mistake(evidence), (str, type(None)))


def test_operators_that_take_one_number_of_samples_alone_are_diagnosed():
    report = ka.check_adjoint(
        lambda x: ops.reshape(x, (2, 12)), lambda y: ops.flip(ops.reshape(y, (2, 3, 4)), 1), input_shape=(2, 3, 4)
    )
    assert not report and report.diagnosis
    report = ka.check_adjoint(lambda x: x + ops.zeros((2, 3, 3)), lambda y: ops.flip(y, 1), input_shape=(2, 3, 3))
    assert not report and report.diagnosis


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "float16"])
def test_models_of_other_dtypes_are_tested_on_numbers_that_they_take_as_they_are(dtype):
    x = keras.Input((4, 3), dtype=dtype)
    model = keras.Model(x, L.Dense(2, use_bias=False)(ops.cast(x, "float32")))
    adjoint = ka.adjoint(model)
    for report in (ka.check_adjoint(model), ka.check_adjoint(adjoint, model)):
        assert report, report
    wrong = ka.check_adjoint(model, lambda y: 2 * adjoint(y))
    assert re.search(r"B is (2|1\.99\d|2\.00\d) times the adjoint", wrong.diagnosis), wrong


class Doubled(keras.Model):
    inputs = ["no tensor"]

    def call(self, x):
        return 2 * x


def test_subclassed_models_are_tested_and_asked_for_their_shape():
    assert ka.check_adjoint(Doubled(), lambda y: 2 * y, input_shape=(2, 3))
    with pytest.raises(ValueError, match="Pass it as `input_shape`"):
        ka.check_adjoint(Doubled(), lambda y: 2 * y)


def test_integers_among_several_inputs_are_integers():
    first, second = keras.Input((3,)), keras.Input((4,), dtype="uint8")
    model = keras.Model([first, second], ops.concatenate([2 * first, ops.cast(second, "float32")], axis=1))
    assert ka.check_adjoint(model)


@pytest.mark.parametrize(
    "options",
    [
        *({"trials": value} for value in (0, -1, 1.5, "3", True, None)),
        *({"seed": value} for value in (-1, 1.5, "a", None)),
        *({"tolerance": value} for value in (-1, math.nan, math.inf, "a", True)),
        *({"input_shape": value} for value in (5, (), (0, 5), (2, -5), (2.5, 5), "25", {}, [], [(2, 5), (None, 5)])),
    ],
    ids=str,
)
def test_options_without_sense_are_refused(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=rf"`{name}` must be .* Received: {name}="):
        ka.check_adjoint(lambda x: x, lambda y: y, **{"input_shape": (2, 5), **options})


def test_output_without_numbers_is_refused():
    with pytest.raises(ValueError, match=r"has no numbers.* Received: an output of shape \(2, 0\)"):
        ka.check_adjoint(lambda x: x[:, :0], lambda y: ops.ones((2, 5)), input_shape=(2, 5))


def test_what_is_merely_rounded_is_not_called_another_arrangement():
    conv = L.Conv2D(4, 3, padding="same", use_bias=False)
    conv.build((1, 8, 8, 4))
    back = L.Conv2DTranspose(4, 3, padding="same", use_bias=False)
    back.build((1, 8, 8, 4))
    random = np.random.default_rng(0).normal(size=(4, 4))
    symmetric = np.multiply.outer(np.outer([0.3, 0.7, 0.3], [0.3, 0.7, 0.3]), random + random.T)
    for kernel in (ops.convert_to_numpy(conv.kernel), symmetric):
        conv.kernel.assign(kernel)
        back.kernel.assign(kernel.astype(ml_dtypes.bfloat16).astype("float32"))
        assert "rounded" in ka.check_adjoint(conv, back).diagnosis
        assert "rounded" in ka.check_adjoint(conv, lambda y: back(y)).diagnosis


def test_weights_that_change_between_two_calls_are_named():
    layer = dense()

    def moving(x):
        y = layer(x)
        layer.kernel.assign(layer.kernel + 0.1)
        return y

    report = ka.check_adjoint(moving, ka.adjoint(layer), input_shape=(2, 5))
    assert not report and "two results: of the same numbers A gives others" in report.diagnosis


def test_weights_that_changed_once_while_a_pair_was_computed_do_not_count():
    """As a training in another thread changes them."""
    layer = dense()
    calls = []

    def backward(y):
        calls.append(y)
        if len(calls) == 1:
            layer.kernel.assign(2 * layer.kernel)
        return ops.matmul(y, ops.transpose(layer.kernel))

    assert ka.check_adjoint(layer, backward)
