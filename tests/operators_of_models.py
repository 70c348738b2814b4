"""Models as matrices, whatever they take and give; and what counts as an error of ours."""

import math
from contextlib import contextmanager

import keras
import numpy as np
from helpers import compiled
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
    return [ops.convert_to_numpy(ops.cast(each, "float64")) for each in in_one_piece(model)(given)]


def in_one_piece(model):
    """The model as a function that gives a list of tensors, on JAX compiled, but for what no compiler takes."""

    def eagerly(given):
        return tree.flatten(model(given, training=False))

    def stateless(given):
        with keras.StatelessScope():
            return eagerly(given)

    def run(given):
        try:
            return compiled(stateless)(given)
        except Exception:
            return eagerly(given)

    return run if keras.backend.backend() == "jax" else eagerly


def flat(arrays):
    """Arrays side by side, one vector for each sample."""
    return np.concatenate([np.asarray(each, "float64").reshape(len(each), -1) for each in arrays], axis=1)


def matrix(model, shapes):
    """The matrix of a model without its constant, for inputs of these shapes without the batch axis."""
    return matrix_and_results(model, zeros(shapes))[0]


def matrix_and_results(model, xs):
    """The matrix of a model without its constant, what it gives for `xs` without it, and the shapes of its outputs."""
    shapes = [x.shape[1:] for x in xs]
    sizes = [math.prod(shape) for shape in shapes]
    units = np.split(np.eye(sum(sizes), dtype="float32"), np.cumsum(sizes)[:-1], axis=1)
    parts = zip(units, zeros(shapes), xs, strict=True)
    batch = [np.concatenate([part.reshape(-1, *x.shape[1:]), zero, x]) for part, zero, x in parts]
    ys = run(model, batch)
    results, count = flat(ys), sum(sizes)
    constant = results[count]
    return (results[:count] - constant).T, results[count + 1 :] - constant, [y.shape[1:] for y in ys]


def zeros(shapes):
    return [np.zeros((1, *shape), "float32") for shape in shapes]


def assert_close(found, expected, tolerance=1e-4):
    scale = max(np.abs(expected).max(initial=0.0), np.abs(found).max(initial=0.0))
    assert found.shape == expected.shape, (found.shape, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def assert_adjoint_of(adjoint, model, xs, tolerance=1e-4):
    """`adjoint` has the transposed matrix of `model`, which is linear, up to a constant, at the samples `xs`."""
    forward, at_xs, shapes = matrix_and_results(model, xs)
    assert_close(at_xs, flat(xs) @ forward.T, 1e-3)
    assert_close(matrix(adjoint, shapes), forward.T, tolerance)


def saved_and_loaded(model, path):
    model.save(path)
    return keras.saving.load_model(path, safe_mode=False)
