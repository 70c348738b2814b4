"""Operators and their matrices, for the property tests."""

import math

import jax
import keras
import numpy as np
import pytest
from keras import ops

from keras_adjoint.layers import conv
from keras_adjoint.ops.algorithms import choose
from keras_adjoint.ops.precision import epsilon
from keras_adjoint.testing.pairs import packed

BACKEND = keras.backend.backend()
BACKENDS = ("tensorflow", "jax", "torch")
# Whose turn it is with many small models, each of which JAX compiles.
MOSTLY_TORCH = ("torch", "torch", "torch", "jax", "torch", "tensorflow")
RARELY_JAX = ("torch", "tensorflow", "torch", "jax", "torch", "tensorflow")
DATA_FORMATS = ["channels_last"] if BACKEND == "tensorflow" else ["channels_last", "channels_first"]  # of convolutions
# Those in which a convolution is trained: PyTorch's CPU has no gradients of float16 convolutions.
HALF_PRECISION_POLICIES = ["mixed_bfloat16"] if BACKEND == "torch" else ["mixed_bfloat16", "mixed_float16"]


def in_turn(cases, name=str, backends=lambda case: BACKENDS, always=()):
    """Parameters of a slow test: `make test` runs each case on one of its backends, one after the other.

    On the backends in `always` it runs each case, because it is slow on the others alone.
    """

    def parameters(number, case):
        turns = backends(case)
        values = case if isinstance(case, tuple) else (case,)
        return pytest.param(*values, id=name(case), marks=pytest.mark.in_turn(turns[number % len(turns)], *always))

    return [parameters(number, case) for number, case in enumerate(cases)]


def build_pair(case, dtype="float64"):
    """(layer, adjoint)."""
    layer = case.build(double_or_single(case, dtype))
    return layer, case.adjoint(layer)


def double_or_single(case, dtype):
    return "float32" if dtype == "float64" and BACKEND in case.no_double_on else dtype


def tolerance(case, layer):
    """Relative to the largest entry: 1e-12 in float64; the rounding of a few sums of float32 where a forward has that."""
    single = layer.compute_dtype == "float32" or BACKEND in case.single_on
    return 64 * epsilon("float32") if single else 1e-12


def operators(case, layer, adjoint):
    """(A, Aᵀ) as functions of one tensor; A is the source without its bias."""
    switches = case.switches()
    if switches is None:
        return packed(forward_of(layer, adjoint), case.packing, None), packed(adjoint, None, case.packing)

    switches = ops.convert_to_tensor(switches, layer.compute_dtype)

    def for_each(x):
        return ops.repeat(switches, x.shape[0], axis=0)

    return lambda x: adjoint.apply_forward(x, for_each(x)), lambda y: adjoint(y, switches=for_each(y))


def forward_of(layer, adjoint):
    """A, computed by the source itself, or on TensorFlow's CPU by a channels-last version of a channels-first source."""
    version = channels_last_version(layer)
    if version is not None:
        return version
    if hasattr(adjoint, "apply_forward"):
        return adjoint.apply_forward
    return lambda x: layer(x, training=False) if layer._call_has_training_arg else layer(x)


def channels_last_version(layer):
    """A as moved axes around a channels-last operation with the same kernel; `None` where the layer itself can run."""
    lacking = isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv1DTranspose))
    if BACKEND != "tensorflow" or not lacking or layer.data_format == "channels_last":
        return None
    operation = ops.conv_transpose if isinstance(layer, keras.layers.Conv1DTranspose) else ops.conv
    geometry = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}

    def version(x):
        x = operation(ops.moveaxis(x, 1, -1), layer.kernel, data_format="channels_last", **geometry)
        return ops.moveaxis(x, -1, 1)

    return version


def compiled(function):
    """The function as the backend computes it soonest: JAX compiles operation by operation what it is not given whole."""
    return jax.jit(function) if BACKEND == "jax" else function


def basis(shape, dtype):
    """All unit tensors of a shape, as one batch."""
    size = math.prod(shape)
    return ops.convert_to_tensor(np.eye(size, dtype=dtype).reshape(size, *shape))


def matrix(operator, shape, dtype):
    """The matrix of a linear operator on tensors of `shape`: its values on the unit tensors, as columns."""
    (found,) = matrices([(operator, shape)], dtype)
    return found


def matrices(operators, dtype):
    """The matrices of several (operator, shape), compiled together."""
    run = compiled(lambda units: [operator(unit) for (operator, _), unit in zip(operators, units, strict=True)])
    columns = run([basis(shape, dtype) for _, shape in operators])
    return [ops.convert_to_numpy(each).reshape(len(each), -1).T for each in columns]


def output_shape(layer):
    return tuple(layer.output.shape[1:])


def record_algorithms(monkeypatch):
    """A list to which the names of the algorithms of adjoint convolutions are added as they run."""
    ran, prepared, form_class = [], choose.prepared_adjoint.__wrapped__, choose.BilinearForm

    def recorded(problem, algorithm):
        forms = []

        def form(*arguments):
            forms.append(form_class(*arguments))
            return forms[-1]

        with monkeypatch.context() as patch:
            patch.setattr(choose, "BilinearForm", form)
            adjoint = prepared(problem, algorithm)

        def run(y, kernel):
            ran.extend(form.algorithm.name for form in forms)
            return adjoint(y, kernel)

        return run

    for module in (choose, conv):
        monkeypatch.setattr(module, "prepared_adjoint", recorded)
    return ran
