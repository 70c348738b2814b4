"""Derivatives of derivatives, which training and nesting exact autoencoders take: backends lack some, or have them wrong."""

import threading

import keras
import numpy as np
import pytest
from autodiff import compiled_gradients, gradients
from encoders import assert_close
from helpers import BACKEND
from keras import ops

from keras_adjoint.layers.derivative import transposed_derivative

L = keras.layers
X = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")


def normalized(x, axes):
    centered = x - ops.mean(x, axis=axes, keepdims=True)
    return centered / ops.sqrt(ops.mean(centered**2, axis=axes, keepdims=True) + 1e-3)


def attention(x):
    return ops.dot_product_attention(*[ops.expand_dims(x**power, 2) for power in (1, 2, 3)], scale=0.7)[:, :, 0]


def plain_attention(x):
    scores = ops.einsum("bqc,bkc->bqk", x, x**2) * 0.7
    return ops.matmul(ops.softmax(scores), x**3)


def resized(interpolation, **options):
    def resize(x):
        return ops.image.resize(x[..., None] ** 3, (7, 5), interpolation=interpolation, **options)

    def plain(x):
        units = ops.reshape(ops.eye(12), (12, 4, 3, 1))
        matrix = ops.reshape(ops.image.resize(units, (7, 5), interpolation=interpolation, **options), (12, 35))
        return ops.reshape(ops.matmul(ops.reshape(x, (-1, 12)) ** 3, ops.stop_gradient(matrix)), (-1, 7, 5, 1))

    return resize, plain


def scalar(function):
    return lambda x: function([x])[0]


# Functions, and the same by operations that every backend differentiates any number of times.
FUNCTIONS = {
    "tensorflow": {
        "layer normalization": (lambda x: L.LayerNormalization()(x), lambda x: normalized(x, -1)),
        "group normalization": (lambda x: L.GroupNormalization(1)(x), lambda x: normalized(x, (1, 2))),
        "moments": (
            lambda x: ops.moments(x, (0, 1))[1] ** 2,
            lambda x: ops.mean((x - ops.mean(x, (0, 1))) ** 2, (0, 1)) ** 2,
        ),
        "softsign": (ops.softsign, lambda x: x / (1 + ops.abs(x))),
        "bicubic": resized("bicubic"),
        "lanczos": resized("lanczos3", antialias=True),
    },
    "torch": {
        "attention": (attention, plain_attention),
        "hard sigmoid": (lambda x: x * ops.hard_sigmoid(x * x), lambda x: x * ops.relu6(x * x + 3) / 6),
    },
}
NAMES = [pytest.param(name, marks=pytest.mark.only_on(backend)) for backend in FUNCTIONS for name in FUNCTIONS[backend]]


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_can_be_differentiated(name):
    """Once and twice: H of x ↦ ⟨y, f(x)⟩, and its derivative."""
    function, plain = FUNCTIONS[BACKEND][name]
    x = ops.convert_to_tensor(X)
    y = np.random.default_rng(1).normal(size=function(x).shape).astype("float32")
    v, w = np.random.default_rng(2).normal(size=(2, *X.shape)).astype("float32")

    def first(function):
        return lambda xs: [ops.sum(transposed_derivative(lambda xs: [function(xs[0])], xs, [y])[0] * v)]

    def second(function):
        return lambda xs: [ops.sum(transposed_derivative(first(function), xs, [ops.ones(())])[0] * w)]

    y, v, w = map(ops.convert_to_tensor, (y, v, w))
    for derivative in (first, second):
        found, expected = (gradients(scalar(derivative(f)), [x])[0] for f in (function, plain))
        assert np.any(expected)
        assert_close(found, expected)


def larger_neighbours(x, rank):
    """Max pooling in windows of two, by one axis after the other."""
    for axis in range(1, rank + 1):
        count = x.shape[axis] - 1
        first, second = (ops.take(x, np.arange(start, start + count), axis=axis) for start in (0, 1))
        x = ops.where(first >= second, first, second)
    return x


@pytest.mark.only_on("tensorflow")
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "by XLA"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pooling_of_what_was_pooled_is_differentiated_twice(rank, compile):
    """Its windows hold one maximum several times, and others that are the same in bfloat16."""
    generator = np.random.default_rng(0)
    x = (1 + 1e-4 * generator.normal(size=(2, *(4, 5, 3)[:rank], 2))).astype("float32")
    y = generator.normal(size=(2, *(2, 3, 1)[:rank], 2)).astype("float32")
    w = ops.convert_to_tensor(generator.normal(size=x.shape).astype("float32"))

    def product(pool):
        def twice(xs):
            return [pool(pool(xs[0])) ** 3]

        return lambda x, y: ops.sum(transposed_derivative(twice, [x], [y])[0] * w)

    def pool(x):
        return ops.max_pool(x, 2, 1)

    found, expected = (product(each) for each in (pool, lambda x: larger_neighbours(x, rank)))
    given = [ops.convert_to_tensor(each) for each in (x, y)]
    found = compiled_gradients(found)(*given) if compile else gradients(found, given)
    for one, other in zip(found, gradients(expected, given), strict=True):
        assert np.any(other)
        assert_close(one, other)


@pytest.mark.only_on("tensorflow")
def test_padding_is_differentiated_three_times_by_xla():
    """By x ∂/∂x a fourth power becomes four of it."""

    def derivative_of(function):
        return lambda xs: [ops.sum(transposed_derivative(function, xs, [ops.ones(())])[0] * xs[0])]

    def fourth_powers(xs):
        return [ops.sum(ops.pad(xs[0], ((1, 2), (0, 1), (2, 0))) ** 4)]

    x = ops.convert_to_tensor(X)
    twice = derivative_of(derivative_of(fourth_powers))
    found, _ = compiled_gradients(lambda x, y: twice([x])[0] + ops.sum(y))(x, x)
    assert_close(found, 64 * X**3)


@pytest.mark.only_on("torch")
@pytest.mark.parametrize(
    "mask", ["none", "causal", "booleans", "nothing kept", "numbers", "infinities", "groups", "scaled"]
)
def test_unfused_attention_is_attention(mask):
    import torch

    from keras_adjoint.ops.backend.torch_derivatives import TwiceDifferentiable

    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn((2, heads, 5, 4), generator=generator) for heads in (4, 2, 2))
    if mask != "groups":
        key, value = (torch.cat([each, 2 * each], dim=1) for each in (key, value))
    numbers = torch.randn((2, 1, 5, 5), generator=generator)
    options = {
        "none": {},
        "causal": {"is_causal": True},
        "booleans": {"attn_mask": numbers > -0.5},
        "nothing kept": {"attn_mask": (numbers > -0.5) & (torch.arange(5) != 2)[:, None]},
        "numbers": {"attn_mask": numbers},
        "infinities": {"attn_mask": numbers.masked_fill(numbers < -0.5, -torch.inf)},
        "groups": {"enable_gqa": True},
        "scaled": {"scale": 0.3},
    }[mask]
    attend = torch.nn.functional.scaled_dot_product_attention
    expected = attend(query, key, value, **options)
    with TwiceDifferentiable():
        found = attend(query, key, value, **options)
    assert_close(found.numpy(), expected.numpy())


@pytest.mark.only_on("torch")
def test_the_kernels_of_other_threads_stay_as_they_are():
    import torch

    from keras_adjoint.ops.backend.torch_derivatives import TwiceDifferentiable

    x, found = torch.ones((1, 1, 2, 2), requires_grad=True), []

    def attend():
        found.append(torch.nn.functional.scaled_dot_product_attention(x, x, x).grad_fn.name())

    attend()
    with TwiceDifferentiable():
        attend()
        thread = threading.Thread(target=attend)
        thread.start()
        thread.join()
    assert found[0] == found[2] != found[1]
