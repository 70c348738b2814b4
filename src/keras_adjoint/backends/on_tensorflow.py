"""TensorFlow."""

import tensorflow as tf

from keras_adjoint.backends import TF32


def coarse_epsilon():
    rounds = tf.config.experimental.tensor_float_32_execution_enabled()
    return TF32 if rounds and tf.config.list_physical_devices("GPU") else 0.0


def average_pooling_edges(before, after):
    return "inside"


def known_size(size):
    return size
