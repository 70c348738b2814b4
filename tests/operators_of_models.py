"""Models as matrices, whatever they take and give; and what counts as an error of ours."""

import math
from contextlib import contextmanager

import keras
import numpy as np
from keras import ops, tree

import keras_adjoint as ka


@contextmanager
def right_or_refused(*places):
    """Errors of ours that name one of the places pass; any other, and a failed assertion, does not."""
    try:
        yield
    except (ka.KerasAdjointError, ValueError) as error:
        if not is_ours(error, places):
            raise AssertionError(f"no error of ours: {type(error).__name__}: {error}") from error
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"no error of ours: {type(error).__name__}: {error}") from error


def is_ours(error, places):
    own_class = isinstance(error, ka.KerasAdjointError) or type(error) is ValueError
    return own_class and "Received: " in str(error) and any(place in str(error) for place in places)


def model_of(inputs, outputs):
    """A model with lists of inputs and outputs, or single ones."""
    inputs, outputs = (tree.flatten(each) for each in (inputs, outputs))
    return keras.Model(*(each[0] if len(each) == 1 else each for each in (inputs, outputs)))


def run(model, xs):
    """What a model gives at inference for a list of arrays, as a list of arrays; by pieces, where its batch is fixed."""
    fixed = model.inputs[0].shape[0]
    count = len(xs[0])
    if fixed is None or fixed == count:
        return _at_once(model, xs)
    if count % fixed:
        missing = fixed - count % fixed
        xs = [np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) for x in xs]
    pieces = [_at_once(model, [x[start : start + fixed] for x in xs]) for start in range(0, len(xs[0]), fixed)]
    return [np.concatenate(parts)[:count] for parts in zip(*pieces, strict=True)]


def runs(model, xs):
    """Whether Keras itself can run a model on this backend's CPU."""
    try:
        run(model, xs)
    except Exception:
        return False
    return True


def _at_once(model, xs):
    tensors = [ops.convert_to_tensor(x, symbolic.dtype) for x, symbolic in zip(xs, model.inputs, strict=True)]
    given = (
        tree.pack_sequence_as(model.input, tensors) if len(tensors) > 1 or isinstance(model.input, dict) else tensors[0]
    )
    found = tree.flatten(model(given, training=False))
    return [ops.convert_to_numpy(ops.cast(each, "float64")) for each in found]


def flat(arrays):
    """Arrays side by side, one vector for each sample."""
    return np.concatenate([np.asarray(each, "float64").reshape(len(each), -1) for each in arrays], axis=1)


def matrix(model, shapes):
    """The matrix of a model without its constant, for inputs of these shapes without the batch axis."""
    sizes = [math.prod(shape) for shape in shapes]
    units = np.split(np.eye(sum(sizes), dtype="float32"), np.cumsum(sizes)[:-1], axis=1)
    columns = flat(run(model, [part.reshape(-1, *shape) for part, shape in zip(units, shapes, strict=True)]))
    return (columns - flat(run(model, zeros(shapes)))).T


def zeros(shapes):
    return [np.zeros((1, *shape), "float32") for shape in shapes]


def assert_close(found, expected, tolerance=1e-4):
    scale = max(np.abs(expected).max(initial=0.0), np.abs(found).max(initial=0.0))
    assert found.shape == expected.shape, (found.shape, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def assert_adjoint_of(adjoint, model, xs, tolerance=1e-4):
    """`adjoint` has the transposed matrix of `model`, which is linear, up to a constant, at the samples `xs`."""
    shapes = [x.shape[1:] for x in xs]
    found = run(model, [x[:1] for x in xs])
    ys = [y.shape[1:] for y in found]
    forward = matrix(model, shapes)
    at_xs = flat(run(model, xs)) - flat(run(model, zeros(shapes)))
    assert_close(at_xs, flat(xs) @ forward.T, 1e-3)
    assert_close(matrix(adjoint, ys), forward.T, tolerance)


def saved_and_loaded(model, path):
    model.save(path)
    return keras.saving.load_model(path, safe_mode=False)
