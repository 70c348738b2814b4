"""The module of the backend that runs has everything that the protocol `Backend` says, with the same signatures."""

import inspect

import pytest

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
