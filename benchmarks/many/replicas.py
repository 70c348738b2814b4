"""TensorFlow's MirroredStrategy trains on two logical CPUs as it does on one."""

import json
import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import tensorflow as tf  # noqa: E402

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

import keras_adjoint as ka  # noqa: E402
from benchmarks.many.model import autoencoder, compiled, differences, train, values  # noqa: E402


def main() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = compiled(autoencoder())
    losses = train(model)
    found = {"replicas": strategy.num_replicas_in_sync, "tied": ka.is_tied(model)}
    print(json.dumps(found | differences(values(model), losses)))


main()
