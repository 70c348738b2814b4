"""The module of the backend that runs has everything that the protocol `Backend` says, with the same signatures."""

import inspect

import numpy as np
import pytest
from autodiff import compiled, gradients
from keras import ops

from keras_adjoint.ops.algorithms.choose import BY_NAME
from keras_adjoint.ops.algorithms.problem import Problem
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.backend.protocol import Backend
from keras_adjoint.ops.geometry import Convolution, Window

CONSTANTS = sorted(Backend.__annotations__)
FUNCTIONS = sorted(name for name, value in vars(Backend).items() if inspect.isfunction(value) and name[0] != "_")


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_are_there(name):
    assert hasattr(current(), name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_signatures_of_the_protocol(name):
    wanted = inspect.signature(getattr(Backend, name))
    without_self = wanted.replace(parameters=list(wanted.parameters.values())[1:])
    assert str(inspect.signature(getattr(current(), name))) == str(without_self)


def test_the_protocol_explains_every_function():
    assert FUNCTIONS and all(getattr(Backend, name).__doc__ for name in FUNCTIONS)


def test_a_backend_that_does_not_fold_says_so():
    problem = Problem(Convolution((Window(3).at(8),)), 1, 2, 3)
    assert BY_NAME["fold"].fits(problem) == (len(problem.convolution.axes) in current().FOLDED_RANKS)
    if not current().FOLDED_RANKS:
        with pytest.raises(NotImplementedError, match="no operation `fold`. Received: Convolution"):
            current().fold(None, problem.convolution)


@pytest.mark.parametrize("compiler", [lambda function: function, compiled], ids=["eager", "compiled"])
def test_vjp_is_the_transpose_of_a_derivative_and_differentiable_again(compiler):
    x, y = (ops.convert_to_tensor(np.random.default_rng(seed).normal(size=(3, 4))) for seed in (0, 1))

    def product(x, y):  # J of x ↦ sum of x³ along the rows
        return current().vjp(lambda x: ops.sum(x**3, axis=1), x, y[:, 0])

    found = compiler(product)(x, y)
    np.testing.assert_allclose(ops.convert_to_numpy(found), 3 * x**2 * y[:, :1])
    by_x, by_y = gradients(lambda *tensors: ops.sum(product(*tensors)), [x, y])
    np.testing.assert_allclose(by_x, 6 * x * y[:, :1])
    np.testing.assert_allclose(by_y[:, 0], ops.sum(3 * x**2, axis=1))


def test_vjp_of_a_constant_is_zero():
    x = ops.convert_to_tensor(np.ones((2, 3)))
    found = current().vjp(lambda x: ops.ones((2,), x.dtype), x, ops.ones((2,), x.dtype))
    np.testing.assert_array_equal(ops.convert_to_numpy(found), np.zeros((2, 3)))
