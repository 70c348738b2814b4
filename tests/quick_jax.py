"""What JAX compiles a program for, once for every shape, and NumPy does as well: arrays, and what Keras' layers start with.

Outside of compiled functions, NumPy also moves numbers that JAX would compile a program to move. `keras.utils.set_random_seed`
and integer seeds mean what they mean in Keras.
"""

import functools
import sys
import threading
from types import SimpleNamespace

import jax
import keras
import numpy as np
from jax._src.interpreters import mlir
from jax._src.lax import lax, slicing
from keras.src.backend import random as original
from keras.src.initializers import constant_initializers, random_initializers

SeedGenerator, make_default_seed = original.SeedGenerator, original.make_default_seed
_asarray = jax.numpy.asarray


def use():
    jax.numpy.asarray = asarray
    random_initializers.random = sys.modules[__name__]
    constant_initializers.ops = SimpleNamespace(**vars(keras.ops) | {"zeros": zeros, "ones": ones})
    for primitive, function in MOVES.items():
        primitive.def_impl(functools.partial(moved, function, primitive.impl))
    # Each program is written in a new context, whose dialects take longer to load than most programs to write.
    context = functools.cache(lambda thread, make=mlir.make_ir_context: make())
    mlir.make_ir_context = lambda: context(threading.get_ident())


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


def moved(function, original, *arrays, **parameters):
    """The numbers in other places or types, by NumPy where it gives the same numbers, else by JAX."""
    simple = parameters.get("sharding") is None and not parameters.get("weak_type")
    if not simple or not all(map(is_plain, arrays)):
        return original(*arrays, **parameters)
    found = function(*map(np.asarray, arrays), **parameters)
    return original(*arrays, **parameters) if found is None else jax.device_put(np.array(found, order="C"))


def is_plain(array):
    """Whether it is where new arrays are, and has a dtype of NumPy's own, which is not merely that of a Python number."""
    if not isinstance(array, jax.Array) or isinstance(array, jax.core.Tracer):
        return False
    return array.dtype.kind in "biufc" and not array.committed and not array.weak_type


def convert(array, *, new_dtype, **_):
    new_dtype = np.dtype(new_dtype)
    exact = new_dtype.kind in "biufc" and (new_dtype.kind == "b" or np.can_cast(array.dtype, new_dtype, "same_kind"))
    return array.astype(new_dtype) if exact else None


def broadcast(array, *, shape, broadcast_dimensions, **_):
    sizes = [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, array.shape, strict=True):
        sizes[axis] = size
    return np.broadcast_to(array.reshape(sizes), shape)


def part(array, *, start_indices, limit_indices, strides):
    strides = strides or [1] * array.ndim
    return array[tuple(map(slice, start_indices, limit_indices, strides))]


MOVES = {
    lax.reshape_p: lambda array, *, new_sizes, dimensions, **_: (
        array.reshape(new_sizes) if dimensions is None else None
    ),
    lax.convert_element_type_p: convert,
    lax.broadcast_in_dim_p: broadcast,
    lax.transpose_p: lambda array, *, permutation: array.transpose(permutation),
    lax.squeeze_p: lambda array, *, dimensions: array.squeeze(tuple(dimensions)),
    lax.concatenate_p: lambda *arrays, dimension: np.concatenate(arrays, dimension),
    slicing.slice_p: part,
}
