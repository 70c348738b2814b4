"""JAX with two devices: what is divided among them, batches or weights, has the values and gradients of one device."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.only_on("jax")

PROGRAM = """
import jax
import keras
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import keras_adjoint as ka
from keras_adjoint_cli.without_tensorflow import keep_tensorflow_out

keep_tensorflow_out()

L = keras.layers
assert len(jax.devices()) == 2
x = keras.Input((9, 8, 3))
y = L.Conv2D(4, 3, strides=2, padding="same", activation="tanh")(x)
y = L.DepthwiseConv2D(3, padding="same")(y)
model = ka.autoencoder(keras.Model(x, L.Dense(5)(L.Flatten()(y))))
generator = np.random.default_rng(0)
images = generator.normal(size=(4, 9, 8, 3)).astype("float32")
weights = [jax.numpy.asarray(generator.normal(size=weight.shape, scale=0.3), "float32") for weight in model.weights]


def loss(weights, images):
    return jax.numpy.sum((model.stateless_call(weights, [], images)[0] - images) ** 2)


gradients = jax.jit(jax.grad(loss))
one_device = gradients(weights, images)
for kind in jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit:
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(kind,))
    by_batch, everywhere = (NamedSharding(mesh, PartitionSpec(*names)) for names in (["batch"], []))
    with jax.sharding.set_mesh(mesh):
        divided = jax.device_put(images, by_batch)
        assert len(divided.sharding.device_set) == 2
        found = gradients(jax.device_put(weights, everywhere), divided)
    for a, b in zip(found, one_device, strict=True):
        assert len(a.sharding.device_set) == 2, kind
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max(), err_msg=str(kind))
    print(kind.name)
"""

WEIGHTS_OF_EACH_DEVICE = """
import jax
import keras
import numpy as np
from jax.sharding import PartitionSpec

import keras_adjoint as ka
from keras_adjoint_cli.without_tensorflow import keep_tensorflow_out

keep_tensorflow_out()


class Scaled(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=shape[1:], initializer="ones")

    def call(self, x):
        return self.scale * self.function(x)


class ScaledSquares(Scaled):
    function = staticmethod(keras.ops.square)


class ScaledSums(Scaled):
    function = staticmethod(lambda x: keras.ops.cumsum(x, axis=1))


x = keras.Input((3,))
sums, dense = ScaledSums(), keras.layers.Dense(3)
sums(x), dense(x)
models = {
    "gradient of a call": ka.autoencoder(keras.Model(x, ScaledSquares()(x)), activation="gradient", bias="none"),
    "automatic adjoint": keras.Model(x, ka.adjoint(sums)(x)),
    "least squares": keras.Model(x, ka.LeastSquares(dense, ridge=0.1)(x)),
}
images = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
each, everywhere = PartitionSpec("device"), PartitionSpec()
mesh = jax.make_mesh((2,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))

for name, model in models.items():
    own = [weight.value for weight in model.trainable_weights]
    both = [jax.numpy.stack([value, 2 * value]) for value in own]

    def apply(weights, images):
        return model.stateless_call([weight[0] for weight in weights], [], images)[0][None]

    def on_one_device(weights, images):
        found = [apply([weight[device:][:1] for weight in weights], images) for device in range(2)]
        return jax.numpy.concatenate(found)

    divided = jax.shard_map(apply, mesh=mesh, in_specs=(each, everywhere), out_specs=each)
    for function in lambda call: call, lambda call: jax.grad(lambda *at: (call(*at) ** 2).sum(), (0, 1)):
        found, expected = (jax.tree.leaves(jax.jit(function(call))(both, images)) for call in (divided, on_one_device))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=name)
print("same")
"""


def test_devices_with_weights_of_their_own_do_not_add_up_what_they_compute():
    found = run(WEIGHTS_OF_EACH_DEVICE)
    assert found.stdout.split()[-1:] == ["same"], found.stderr[-3000:]


def test_gradients_of_two_devices_are_those_of_one():
    found = run(PROGRAM)
    assert found.stdout.split()[-2:] == ["Auto", "Explicit"], found.stderr[-3000:]


def run(program):
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2",
    }
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
