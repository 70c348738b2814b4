"""Kernels of every kind: NumPy, variables, symbolic and other frameworks' tensors; dtypes and gradients are kept."""

import builtins
import itertools

import keras
import numpy as np
import pytest
from keras import ops
from references import FRAMEWORKS, random, tensor

from keras_adjoint.kernels.channels import adapter_matrix
from keras_adjoint.kernels.layouts import adapt_bias, adapt_channels, convert_layout, transpose_kernel

KINDS = ["conv_transpose", "conv", "flip", "swap_spatial", "swap_channels"]


def everything(kernel):
    """Every function of the module, on one 2 × 3 × 2 × 6 kernel in `HWIO`; all give floating point results of it."""
    yield convert_layout(kernel, "HWIO", "OIHW")
    for kind, groups in itertools.product(KINDS, (1, 2)):
        yield transpose_kernel(kernel, kind, groups=groups)
    yield adapt_channels(kernel)
    for method, sizes in [("repeat", (5, 9)), ("average", (1, 4)), ("truncate", (1, 4)), ("pad", (5, 9))]:
        yield adapt_channels(kernel, in_channels=sizes[0], out_channels=sizes[1], method=method)
    bias = kernel[0, 0, 0]
    for method, size in [("repeat", 9), ("average", 4), ("truncate", 4), ("pad", 9), ("zeros", 3)]:
        yield adapt_bias(bias, size, method)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_tensors_of_every_framework_give_its_tensors_whatever_the_backend(framework):
    kernel = random(2, 3, 2, 6)
    tensors = everything(tensor(framework, kernel))
    for result, expected in zip(tensors, everything(kernel), strict=True):
        assert isinstance(expected, np.ndarray)
        assert isinstance(result, type(tensor(framework, kernel)))
        np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_dtypes_of_tensors_are_kept(framework):
    kernel = tensor(framework, random(2, 3, 2, 6), "bfloat16")
    assert {result.dtype for result in everything(kernel)} == {kernel.dtype}


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_numpy_dtypes_are_kept(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kernel = random(2, 3, 2, 6).astype(getattr(ml_dtypes, dtype, dtype))
    assert {result.dtype.name for result in everything(kernel)} == {dtype}


@pytest.mark.any_backend
def test_half_precision_averages_are_added_in_single_precision():
    kernel = random(1, 1, 1, 2000, dtype="float16") + np.float16(1)
    averaged = adapt_channels(kernel, out_channels=1, method="average")
    np.testing.assert_allclose(averaged[0, 0, 0, 0], kernel.astype("float64").mean(), rtol=2e-3)


def test_variables_give_tensors_of_the_active_backend():
    variable = keras.Variable(random(2, 3, 2, 6))
    for result, expected in zip(everything(variable), everything(random(2, 3, 2, 6)), strict=True):
        assert ops.is_tensor(result) and not isinstance(result, keras.Variable)
        np.testing.assert_allclose(ops.convert_to_numpy(result), expected, rtol=1e-6)


def test_symbolic_kernels_are_rearranged_symbolically():
    kernel = keras.Input(batch_shape=(2, 3, 2, 6))
    outputs = list(everything(kernel))
    model = keras.Model(kernel, outputs[:-1])
    for result, expected in zip(model(random(2, 3, 2, 6)), everything(random(2, 3, 2, 6)), strict=False):
        np.testing.assert_allclose(ops.convert_to_numpy(result), expected, rtol=1e-6)


@pytest.mark.any_backend
def test_lists_are_read_as_numpy_arrays():
    assert adapt_bias([1.0, 2.0], 3).tolist() == [1, 2, 1]


@pytest.mark.any_backend
def test_numpy_results_can_become_torch_tensors():
    torch = pytest.importorskip("torch")
    for result in everything(random(2, 3, 2, 6)):
        torch.from_numpy(result)  # refuses views with negative strides


def test_numpy_kernels_import_no_framework(monkeypatch):
    import_module, imported = builtins.__import__, []

    def watch(name, *args, **kwargs):
        imported.append(name.partition(".")[0])
        return import_module(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watch)
    list(everything(random(2, 3, 2, 6)))
    assert not {"jax", "tensorflow", "torch"} & {*imported}


def gradients(function, kernel):
    """The gradient of `function` by the active backend, as NumPy."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(jax.numpy.asarray(kernel)))
    if backend == "tensorflow":
        import tensorflow as tf

        variable = tf.Variable(kernel)
        with tf.GradientTape() as tape:
            value = function(variable)
        gradient = tape.gradient(value, variable)
        assert isinstance(gradient, tf.Tensor), "sparse gradients cannot be clipped or read"
        return gradient.numpy()
    import torch

    kernel = torch.tensor(kernel, requires_grad=True)
    function(kernel).backward()
    return kernel.grad.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow_through_transposes(kind):
    # The sum of squares of rearranged entries has the gradient 2 · kernel.
    kernel = random(3, 2, 2, 6)
    gradient = gradients(lambda k: ops.sum(transpose_kernel(k, kind, groups=2) ** 2), kernel)
    np.testing.assert_allclose(gradient, 2 * kernel, rtol=1e-6)


@pytest.mark.parametrize("method, target", [("repeat", 9), ("pad", 9), ("average", 4), ("truncate", 4)])
@pytest.mark.parametrize("layout", ["HWIO", "OIHW"])
def test_gradients_flow_through_adapters(method, target, layout):
    kernel = convert_layout(random(3, 2, 2, 6), "HWIO", layout)
    gradient = gradients(
        lambda k: ops.sum(adapt_channels(k, out_channels=target, method=method, layout=layout)), kernel
    )
    expected = adapter_matrix(6, target, method).sum(axis=1)
    expected = np.broadcast_to(expected, (3, 2, 2, 6))
    np.testing.assert_allclose(convert_layout(gradient, layout, "HWIO"), expected, rtol=1e-6)


def test_gradients_flow_through_biases():
    gradient = gradients(lambda b: ops.sum(adapt_bias(b, 5) * ops.arange(5, dtype="float32")), random(2))
    np.testing.assert_allclose(gradient, [0 + 2 + 4, 1 + 3])
