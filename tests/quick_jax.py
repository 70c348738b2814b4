"""What JAX compiles a program for, once for every shape, and NumPy does as well: arrays, and what Keras' layers start with.

`keras.utils.set_random_seed` and integer seeds mean what they mean in Keras.
"""

import sys
from types import SimpleNamespace

import jax
import keras
import numpy as np
from keras.src.backend import random as original
from keras.src.initializers import constant_initializers, random_initializers

SeedGenerator, make_default_seed = original.SeedGenerator, original.make_default_seed
_asarray = jax.numpy.asarray


def use():
    jax.numpy.asarray = asarray
    random_initializers.random = sys.modules[__name__]
    constant_initializers.ops = SimpleNamespace(**vars(keras.ops) | {"zeros": zeros, "ones": ones})


def asarray(a, dtype=None, **options):
    if isinstance(a, np.ndarray) and not options:
        with jax.ensure_compile_time_eval():
            a = jax.device_put(np.asarray(a, dtype))
    return _asarray(a, dtype, **options)


def normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
    return _tensor(_generator(seed).normal(mean, stddev, shape), dtype)


def truncated_normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
    return _tensor(mean + stddev * np.clip(_generator(seed).normal(size=shape), -2, 2), dtype)


def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
    return _tensor(_generator(seed).uniform(minval, maxval, shape), dtype)


def zeros(shape, dtype=None):
    return _tensor(np.zeros(shape), dtype)


def ones(shape, dtype=None):
    return _tensor(np.ones(shape), dtype)


def _generator(seed):
    return np.random.default_rng(seed if isinstance(seed, int) else np.random.randint(2**31))


def _tensor(array, dtype):
    return keras.ops.convert_to_tensor(array.astype(dtype or keras.config.floatx()))
