"""The backends' own transformations take an adjoint layer: those that no other test uses.

Gradients, Hessians, forward mode, maps and compilers are in `test_derivatives.py`, for every algorithm.
"""

import keras
import numpy as np
import pytest
from encoders import values
from helpers import BACKEND
from keras import ops

import keras_adjoint as ka
from keras_adjoint.ops.algorithms.choose import BY_NAME
from keras_adjoint.ops.backend import current

ALGORITHMS = [name for name in BY_NAME if name != "fold" or BACKEND == "torch"]
each_algorithm = pytest.mark.parametrize("algorithm", [*ALGORITHMS, "automatic"])


class WithoutRule(keras.layers.Conv1D):
    def call(self, inputs):
        return super().call(inputs)


def layer_and_input(algorithm, dtype="float32"):
    is_automatic = algorithm == "automatic"
    layer_class = WithoutRule if is_automatic else keras.layers.Conv1D
    conv = layer_class(3, 3, strides=2, padding="same", dtype=dtype)
    conv.build((None, 6, 2))
    y = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 3, 3)), dtype)
    return ka.adjoint(conv, algorithm=None if is_automatic else algorithm), y


def function_of(layer):
    """(kernel, y) ↦ the layer's output, without the layer's state."""

    def apply(kernel, y):
        bias = layer.source.bias
        with keras.StatelessScope(state_mapping=[(layer.source.kernel, kernel), (bias, bias.value)]):
            return layer(y)

    return apply


def arguments(algorithm):
    layer, y = layer_and_input(algorithm)
    return function_of(layer), layer.source.kernel.value, y


def assert_same(found, expected):
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(values(one), values(other), rtol=1e-5, atol=1e-5)


# --- JAX


def squared(apply):
    return lambda kernel, y: ops.sum(ops.square(apply(kernel, y)))


@pytest.mark.only_on("jax")
@each_algorithm
def test_jax_rematerialises_and_scans(algorithm):
    import jax

    apply, kernel, y = arguments(algorithm)
    gradients = jax.jit(jax.grad(squared(apply), (0, 1)))
    remat = jax.jit(jax.grad(squared(jax.checkpoint(apply)), (0, 1)))
    assert_same(remat(kernel, y), gradients(kernel, y))

    def scanned(kernel, y):
        return jax.lax.scan(lambda total, one: (total + squared(apply)(kernel, one[None]), None), 0.0, y)[0]

    assert_same(jax.jit(jax.grad(scanned, (0, 1)))(kernel, y), gradients(kernel, y))


def mesh(kind):
    """One device is enough for the types of tensors, and computes without waiting for others."""
    import jax

    return jax.make_mesh((1,), ("batch",), axis_types=(getattr(jax.sharding.AxisType, kind),))


@pytest.mark.only_on("jax")
@each_algorithm
@pytest.mark.parametrize("kernel_varies", [False, True], ids=["shared kernel", "kernel of each device"])
def test_jax_differentiates_through_shard_map(algorithm, kernel_varies):
    import jax
    from jax.sharding import PartitionSpec

    apply, kernel, y = arguments(algorithm)
    everywhere, split = PartitionSpec(), PartitionSpec("batch")

    def total(kernel, y):
        return jax.lax.psum(squared(apply)(kernel, y), "batch")

    specs = (split if kernel_varies else everywhere, everywhere if kernel_varies else split)
    mapped = jax.shard_map(total, mesh=mesh("Auto"), in_specs=specs, out_specs=everywhere)
    expected = jax.jit(jax.grad(squared(apply), (0, 1)))(kernel, y)
    assert_same(jax.jit(jax.grad(mapped, (0, 1)))(kernel, y), expected)

    within = jax.shard_map(jax.grad(squared(apply)), mesh=mesh("Auto"), in_specs=specs, out_specs=specs[0])
    assert_same(jax.jit(within)(kernel, y), expected[0])


@pytest.mark.only_on("jax")
@each_algorithm
def test_jax_keeps_the_sharding_of_the_batch(algorithm):
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    apply, kernel, y = arguments(algorithm)
    expected = jax.jit(jax.grad(squared(apply), (0, 1)))(kernel, y)
    devices = mesh("Explicit")
    with jax.sharding.set_mesh(devices):
        kernel = jax.device_put(kernel, NamedSharding(devices, PartitionSpec()))
        y = jax.device_put(y, NamedSharding(devices, PartitionSpec("batch")))
        assert jax.typeof(jax.jit(apply)(kernel, y)).sharding.spec[0] == "batch"
        found = jax.jit(jax.grad(squared(apply), (0, 1)))(kernel, y)
        assert jax.typeof(found[1]).sharding.spec[0] == "batch"
    assert_same(found, expected)


# --- PyTorch


@pytest.mark.only_on("torch")
@each_algorithm
def test_second_derivatives_of_pytorch_are_those_of_finite_differences(algorithm):
    import torch

    layer, y = layer_and_input(algorithm, "float64")
    kernel = layer.source.kernel.value
    inputs = kernel.detach().clone().requires_grad_(), y.clone().requires_grad_()
    apply = function_of(layer)
    assert torch.autograd.gradcheck(apply, inputs)
    assert torch.autograd.gradgradcheck(apply, inputs)


@pytest.mark.only_on("torch")
def test_pytorch_exports_a_tied_model():
    import torch

    x = keras.Input((6, 2))
    conv = keras.layers.Conv1D(3, 3, strides=2, padding="same")
    code = conv(x)
    model = keras.Model(x, ka.adjoint(conv, bias="own")(code))
    sample = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 6, 2)), "float32")
    program = torch.export.export(model, (sample,))
    assert_same(program.module()(sample), model(sample))
    assert len(list(program.parameters())) == len(model.weights)


# --- TensorFlow


@pytest.mark.only_on("tensorflow")
@each_algorithm
def test_tensorflow_maps_and_compiles_the_gradient(algorithm):
    import tensorflow as tf

    layer, y = layer_and_input(algorithm)

    def gradient(y):
        with tf.GradientTape() as tape:
            tape.watch(y)
            total = tf.reduce_sum(tf.square(layer(y)))
        return tape.gradient(total, [y, layer.source.kernel.value])

    expected = gradient(y)
    assert_same(tf.function(gradient, jit_compile=True)(y), expected)
    mapped = tf.vectorized_map(lambda one: layer(one[None])[0], y)
    assert_same(mapped, layer(y))


def test_every_algorithm_of_the_backend_is_tried():
    assert set(ALGORITHMS) >= {
        name for kinds in current().CANDIDATES.values() for names in kinds.values() for name in names
    }
