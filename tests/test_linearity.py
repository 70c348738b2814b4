"""The test of linearity sees what is not linear: outside of the usual range, too, across samples, and in derivatives."""

from itertools import product

import keras
import numpy as np
import pytest
from helpers import in_turn
from keras import ops

from keras_adjoint.layers.linearity import NotLinear, check_linearity

ROOT = np.random.default_rng(3).normal(size=(6, 5)).astype("float32")


def one(function):
    """A function of a list of one tensor."""
    return lambda tensors: function(tensors[0])


def leaky(slope):
    return lambda x: ops.leaky_relu(x, slope)


REFUSED = {
    "clip at 5": (lambda x: ops.clip(x, -5, 5), "of 8 · x"),
    "clip at 1000": (lambda x: ops.clip(x, -1e3, 1e3), "of 1024 · x"),
    "clip of a thousandth": (lambda x: ops.clip(1e-3 * x, -10, 10), r"of 1.638e\+04 · x"),
    "clip, with a constant": (lambda x: ops.clip(x, -1e3, 1e3) + 1, "the constant that it gives of 0 subtracted"),
    "saturation": (lambda x: 1e3 * ops.tanh(1e-3 * x), "·"),
    "dead zone": (lambda x: ops.where(ops.abs(x) < 1e-4, 0 * x, x), "of 0.0009766 · x"),
    "leaky relu": (ops.leaky_relu, "of -1 · x"),
    "nearly linear relu": (leaky(0.9999), "of -1 · x"),
    "nearly linear relu, with a constant": (lambda x: leaky(0.9999)(x) + 3, "of -1 · x"),
    "absolute value": (ops.abs, "of -1 · x"),
    "relu": (ops.relu, "of -1 · x"),
    "square": (ops.square, "of -1 · x"),
    "sign": (ops.sign, "·"),
    "sort": (lambda x: ops.sort(x, axis=-1), "of -1 · x"),
    # Of an even number of entries Keras 3.10 takes the lower of the two in the middle, on PyTorch.
    "median": (lambda x: ops.median(x[..., :5], axis=-1), "the sum of what it gives"),
    "largest in size": (
        lambda x: ops.where(ops.abs(x) == ops.amax(ops.abs(x), axis=-1, keepdims=True), x, 0),
        "the sum",
    ),
    "softmax": (ops.softmax, "of -1 · x"),
    "normalisation": (lambda x: x / (1 + ops.sqrt(ops.sum(x * x, axis=-1, keepdims=True))), "·"),
    "not finite at 0": (lambda x: x / ops.sum(x, axis=-1, keepdims=True), "of zeros it gives some that are not finite"),
    "complex numbers": (lambda x: ops.cast(x, "complex64"), "stack the real and the imaginary parts"),
    "rounding": (ops.round, "·"),
    "8 bits": (lambda x: ops.round(x * 256) / 256, "·"),
    "16 bits": (lambda x: ops.round(x * 2**14) / 2**14, "·"),
    "rounding with the derivative of the identity": (lambda x: x + ops.stop_gradient(ops.round(x) - x), "·"),
    "integers": (lambda x: ops.argmax(x, axis=-1), "gives int"),
    "no tensor": (lambda x: None, "gives NoneType"),
    "an error": (lambda x: ops.reshape(x, (-1, 7)), "it fails with"),
    "a constant of three samples": (lambda x: x + ops.ones((3, 6)), "cannot be tested .* takes 3 samples and no other"),
    "a constant of five samples": (lambda x: x + ops.ones((5, 6)), "cannot be tested .* takes 5 samples and no other"),
    "mean over samples": (lambda x: x - ops.mean(x, axis=0, keepdims=True), "it mixes them"),
    "previous sample": (lambda x: ops.roll(x, 1, axis=0), "it mixes them"),
    "samples reversed": (lambda x: ops.flip(x, axis=0), "it mixes them"),
    "sum over earlier samples": (lambda x: ops.cumsum(x, axis=0), "it mixes them"),
    "samples weighed by place": (
        lambda x: x * ops.reshape(ops.arange(1, ops.shape(x)[0] + 1, dtype=x.dtype), (-1, 1)),
        "in another order",
    ),
    "number of samples": (lambda x: x * ops.cast(ops.shape(x)[0], x.dtype), "2 samples give other results"),
    "a batch of one": (lambda x: 2 * x if x.shape[0] == 1 else x, "a sample gives another result than it does among"),
    "samples cut up": (lambda x: ops.reshape(x, (-1, 3)), "3 samples into a tensor of shape"),
    "samples summed": (lambda x: ops.sum(x, axis=0), "mixes samples"),
    "no sample axis": (lambda x: ops.sum(x), "mixes samples"),
    "stopped gradient": (lambda x: x + ops.stop_gradient(x), "its derivative is not the linear map"),
    "a derivative that is not finite beyond": (
        lambda x: x + 1e-30 * ops.sqrt(100 - ops.abs(x) + ops.abs(100 - ops.abs(x))),
        "its derivatives at 0 and at a large random x differ",
    ),
    "a kink beyond": (lambda x: x + 1e-3 * ops.relu(x - 5000), "·"),
}


@pytest.mark.parametrize("name", in_turn(REFUSED))
def test_what_is_not_linear_is_refused_with_what_showed_it(name):
    function, words = REFUSED[name]
    with pytest.raises(NotLinear, match=words):
        check_linearity(one(function), [(6,)], "float32")


ACCEPTED = {
    "matrix": lambda x: ops.matmul(x, ops.cast(ROOT, x.dtype)),
    "matrix and constant": lambda x: ops.matmul(x, ops.cast(ROOT, x.dtype)) + 2,
    "two matrices, a constant between": lambda x: ops.matmul(
        ops.matmul(x, ops.cast(ROOT, x.dtype)) + 1, ops.cast(ROOT.T, x.dtype)
    ),
    "zeros": lambda x: 0 * x,
    "a constant": lambda x: ops.ones_like(x),
    "sums": lambda x: ops.cumsum(x, axis=1),
    "reversed": lambda x: ops.flip(x, axis=1),
    "several": lambda x: {"a": x[:, :2], "b": [2 * x, x - 1]},
    "large": lambda x: 1e6 * x,
    "small": lambda x: 1e-6 * x,
}


@pytest.mark.parametrize("seed", range(6))
def test_rounding_is_relative_to_the_terms_of_a_sum_and_to_a_constant(seed, monkeypatch):
    """One number per sample is small by chance, and what is added to a constant is rounded to the constant's precision."""
    original = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda _: original(seed))
    for size in (1, 2, 7, 48):
        for function in (
            lambda x: ops.sum(x, axis=1),
            lambda x: ops.mean(x, axis=1) + 7,
            lambda x: x + 100.0,
            lambda x: (x - 0.485) / 0.229,
        ):
            check_linearity(one(function), [(size,)], "float32")


OF_MIDDLE_SIZE = [name for name in ACCEPTED if name not in ("large", "small")]  # as float16 can hold


@pytest.mark.parametrize(
    ("name", "dtype"),
    in_turn(
        [*product(ACCEPTED, ["float32", "float64", "bfloat16"]), *((name, "float16") for name in OF_MIDDLE_SIZE)],
        name=" ".join,
    ),
)
def test_what_is_linear_is_accepted_in_every_precision(name, dtype):
    check_linearity(one(ACCEPTED[name]), [(6,)], dtype)


@pytest.mark.parametrize(
    ("name", "dtype"),
    in_turn(
        list(
            product(
                ["clip at 5", "leaky relu", "mean over samples", "stopped gradient"], ["float64", "bfloat16", "float16"]
            )
        ),
        name=" ".join,
    ),
)
def test_what_is_not_linear_is_refused_in_every_precision(name, dtype):
    with pytest.raises(NotLinear):
        check_linearity(one(REFUSED[name][0]), [(6,)], dtype)


def test_several_inputs_are_one_vector():
    check_linearity(lambda xs: ops.concatenate([xs[0], 3 * xs[1]], axis=1), [(2,), (4,)], "float32")
    with pytest.raises(NotLinear):
        check_linearity(lambda xs: xs[0] * xs[1], [(2,), (2,)], "float32")


def test_a_number_of_samples_that_is_given_is_kept_to():
    sizes = set()

    def function(xs):
        sizes.add(int(xs[0].shape[0]))
        return 2 * xs[0]

    check_linearity(function, [(3,)], "float32", samples=4)
    assert sizes == {4}
    with pytest.raises(NotLinear, match="it mixes them"):
        check_linearity(one(lambda x: ops.flip(x, axis=0)), [(3,)], "float32", samples=4)


def test_chance_is_seen():
    generator = keras.random.SeedGenerator(0)
    with pytest.raises(NotLinear, match="two results"):
        check_linearity(one(lambda x: x + keras.random.normal(ops.shape(x), seed=generator)), [(3,)], "float32")


@pytest.mark.parametrize("size", [1e-36, 1e-38])
def test_numbers_that_are_smaller_than_a_dtype_holds_are_not_called_nonlinear(size):
    weight = np.float32(size) * np.arange(1, 6, dtype="float32")
    try:
        check_linearity(one(lambda x: ops.cumsum(ops.multiply(x, weight), axis=-1)), [(5,)], "float32")
    except NotLinear as found:
        assert "cannot be tested" in str(found) and "float32 holds few digits" in str(found)


def test_small_numbers_hide_nothing_that_a_dtype_holds():
    with pytest.raises(NotLinear, match="it is not linear"):
        check_linearity(one(lambda x: 1e-20 * ops.relu(x)), [(5,)], "float32")


@pytest.mark.parametrize("size", [10**14, 10**30])  # more than memory is addressed by, and than integers of arrays hold
def test_what_no_memory_can_hold_is_not_tested(size):
    with pytest.raises(NotLinear, match=rf"no memory is left for numbers of shape \(3, {size}\)"):
        check_linearity(one(lambda x: 2 * x), [(size,)], "float32")
