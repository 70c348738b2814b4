"""Every function of `keras.ops` in a Functional model: what is linear has the right adjoint, all else is right or refused.

Functions are found by introspection, so that those of a later Keras are tested as soon as they exist.
"""

import inspect
from itertools import islice

import keras
import numpy as np
import pytest
from helpers import RARELY_JAX, in_turn
from keras import ops
from linear_operations import IMAGE, LINEAR, NOT_CALLED, NOT_ON, ROW, ROWS
from operators_of_models import assert_adjoint_of, model_of, right_or_refused, run, runs, saved_and_loaded

import keras_adjoint as ka

FUNCTIONS = {
    name: function
    for name, function in inspect.getmembers(ops, callable)
    if not inspect.isclass(function) and not name.startswith("_")
}


def built(applied):
    inputs = [keras.Input(batch_shape=(applied.batch, *shape)) for shape in applied.shapes]
    return model_of(inputs, applied.function(*inputs))


def samples(model):
    generator = np.random.default_rng(1)
    return [generator.normal(size=(x.shape[0] or 3, *x.shape[1:])).astype("float32") for x in model.inputs]


def backends_of(case):
    return [backend for backend in RARELY_JAX if backend not in NOT_ON.get(case, ())]


@pytest.mark.parametrize(
    ("name", "number"), in_turn([(name, n) for name in LINEAR for n in range(len(LINEAR[name]))], str, backends_of)
)
def test_the_adjoint_of_a_linear_function_is_right(name, number, tmp_path):
    assert name in FUNCTIONS or keras.version() < "3.15"
    model = built(LINEAR[name][number])
    if keras.version() < "3.15" and not runs(model, samples(model)):
        pytest.skip("Keras itself does not run it on this backend")
    adjoint = ka.adjoint(model)
    assert_adjoint_of(adjoint, model, samples(model))
    loaded = saved_and_loaded(adjoint, tmp_path / "adjoint.keras")
    assert_adjoint_of(loaded, model, samples(model))
    again = ka.adjoint(loaded)
    assert_adjoint_of(adjoint, again, samples(model))


def calls(function):
    """A function of an unknown meaning, called on symbolic tensors in various ways."""
    parameters = list(inspect.signature(function).parameters)
    axis = [{"axis": 1}, {"axis": -1}] if "axis" in parameters else []
    shapes = [(4, 3), (3, 3), IMAGE, (6,)]
    for keywords in ({}, *axis):
        yield from ((lambda x, k=keywords: function(x, **k), [shape]) for shape in shapes)
        for constant in (ROW, abs(ROWS), 2, 2.0, [1, 0], (2, 2)):
            yield lambda x, c=constant, k=keywords: function(x, c, **k), [(4, 3)]
            yield lambda x, c=constant, k=keywords: function(c, x, **k), [(4, 3)]
        yield lambda x, y, k=keywords: function(x, y, **k), [(4, 3), (4, 3)]
        yield lambda x, y, k=keywords: function([x, y], **k), [(4, 3), (4, 3)]
        yield lambda x, k=keywords: function(x, x, **k), [(3, 3)]
    yield lambda x: function(x, 1, 2), [(4, 3)]
    yield lambda x: function(x, ROW, ROW), [(4, 3)]


OTHERS = [name for name in FUNCTIONS if name not in LINEAR and name not in NOT_CALLED]


@pytest.mark.parametrize("name", in_turn(OTHERS, backends=lambda name: RARELY_JAX))
def test_any_other_function_is_right_or_refused(name):
    check_other(name, most=2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in LINEAR])
def test_any_other_function_in_all_ways_is_right_or_refused(name):
    check_other(name)


def check_other(name, most=None):
    """Check the first `most` ways in which a function can be called."""
    ways = (model_that_runs(function, shapes) for function, shapes in calls(FUNCTIONS[name]))
    models = list(islice((model for model in ways if model is not None), most))
    for model in models:
        with right_or_refused(model.name):
            assert_adjoint_of(ka.adjoint(model), model, samples(model))
        with right_or_refused(model.name):
            run(ka.mirror(model), run(model, samples(model)))
    if not models:
        pytest.skip("it cannot be called on symbolic tensors alone")


def model_that_runs(function, shapes):
    """A model of a function, or `None` if Keras makes none or the backend cannot run it."""
    inputs = [keras.Input(shape) for shape in shapes]
    try:
        model = model_of(inputs, function(*inputs))
        found = run(model, samples(model))
    except Exception:
        return None
    reached = not any(id(y) == id(x) for y in model.outputs for x in model.inputs)
    return model if reached and all(np.isfinite(y).all() for y in found) else None
