"""`lstsq` and `nnls` against NumPy and SciPy on the dense matrix: solutions, their derivatives, a status for each sample."""

import re
import warnings
from functools import partial
from itertools import product

import keras
import numpy as np
import pytest
import scipy.optimize
from autodiff import derivatives_along
from helpers import in_turn
from keras import layers, ops

import keras_adjoint as ka
from keras_adjoint.errors import SizeError
from keras_adjoint.ops.backend import current

BACKEND = keras.backend.backend()


def built(layer, *shape, dtype="float64", seed=0):
    """A layer with a kernel of normal numbers."""
    layer.dtype_policy = keras.DTypePolicy(dtype)
    layer.build((None, *shape))
    numbers = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(numbers.standard_normal(variable.shape))
    return layer


def square(size):
    """A layer whose kernel is a matrix, and that PyTorch computes in float64, which it does not do for `Dense`."""
    return built(layers.Conv1D(size, 1, use_bias=False), 1, size)


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


# Others than PyTorch take many seconds to compile the derivative of a derivative.
TURNS = ("tensorflow", "torch", "jax", "torch", "torch", "torch")
STRIDED = {"strides": 2, "padding": "same", "use_bias": False}
OPERATORS = {
    "wide": lambda: ka.operator(built(layers.Conv2D(2, 2, use_bias=False), 4, 3, 5)),
    "tall": lambda: ka.operator(built(layers.Conv2D(6, 2, use_bias=False), 4, 3, 1)),
    "neither": lambda: repeated(ka.operator(built(layers.Conv1D(1, 3, **STRIDED), 8, 2))),
}


def repeated(operator):
    """An operator that has neither full row rank nor full column rank."""
    return ka.vstack([operator, -2 * operator])


def solved(matrix, y, ridge=0.0, weights=1.0):
    """The solutions for rows y, by NumPy's pseudo-inverse."""
    roots = np.sqrt(np.broadcast_to(weights, y.shape))
    left = [np.vstack([row[:, None] * matrix, np.sqrt(ridge) * np.eye(matrix.shape[1])]) for row in roots]
    right = [np.concatenate([row * one, np.zeros(matrix.shape[1])]) for row, one in zip(roots, y, strict=True)]
    return np.stack([np.linalg.pinv(one, rcond=1e-9) @ other for one, other in zip(left, right, strict=True)])


def batch(space, rows):
    return space.pack([numpy(leaf) for leaf in space.split(ops.convert_to_tensor(rows))])


def rows_of(space, tensors):
    return numpy(space.join(keras.tree.flatten(tensors)))


@pytest.mark.parametrize(
    ("name", "method"), in_turn([*product(OPERATORS, ["cgls", "lsmr"])], backends=lambda case: TURNS, always=["torch"])
)
def test_solution_is_that_of_the_pseudo_inverse(name, method):
    operator = OPERATORS[name]()
    matrix, y = operator.to_matrix(), normal(3, operator.shape[0])
    y[1] *= 1e-6  # converges to the same relative error
    weights = np.abs(normal(operator.shape[0], seed=3))
    for ridge, given in ((0.0, None), (0.1, None), (0.1, weights)):
        options = {} if given is None else {"weights": batch(operator.out_space, given[None])}
        found = ka.lstsq(operator, batch(operator.out_space, y), ridge=ridge, method=method, **options)
        expected = solved(matrix, y, ridge, 1.0 if given is None else given)
        scale = np.abs(expected).max(axis=1, keepdims=True)
        np.testing.assert_allclose(rows_of(operator.in_space, found.x) / scale, expected / scale, atol=1e-7)
        missed = (expected @ matrix.T - y) * np.sqrt(1.0 if given is None else given)
        np.testing.assert_allclose(numpy(found.residual_norm), np.linalg.norm(missed, axis=1), rtol=1e-6, atol=1e-8)
        assert numpy(found.converged).all()


@pytest.mark.parametrize(
    ("name", "gradient"),
    in_turn(
        [*product(("tall", "wide", "neither"), ("implicit", "unrolled"))], backends=lambda case: TURNS, always=["torch"]
    ),
)
def test_derivatives_of_the_solution_are_those_of_the_pseudo_inverse(name, gradient):
    operator = OPERATORS[name]()
    (kernel,) = operator.variables()
    matrix = operator.to_matrix()
    start, direction = numpy(kernel), normal(*kernel.shape, seed=5)
    kernel.assign(direction)
    change = operator.to_matrix()
    kernel.assign(start)
    y, dy, weights, dweights = (normal(2, operator.shape[0], seed=seed) for seed in (1, 2, 3, 4))
    weights = 1 + np.abs(weights[:1])
    cotangent = normal(2, operator.shape[1], seed=6)
    spaces = operator.in_space, operator.out_space

    def along(t, point, slope):
        return ops.convert_to_tensor(point) + t * ops.convert_to_tensor(slope)

    def value(t, ridged):
        with keras.StatelessScope(state_mapping=[(kernel, along(t, start, direction))]):
            given = spaces[1].pack(spaces[1].split(along(t, weights, dweights[:1])))
            options = {"ridge": 0.2 + 0.1 * t, "weights": given}
            rows = spaces[1].pack(spaces[1].split(along(t, y, dy)))
            steps = {"max_steps": 40} if gradient == "unrolled" else {}
            found = ka.lstsq(operator, rows, gradient=gradient, tolerance=1e-12, **(options if ridged else {}), **steps)
            return ops.sum(spaces[0].join(keras.tree.flatten(found.x)) * ops.convert_to_tensor(cotangent))

    def expected(t, ridged):
        options = (0.2 + 0.1 * t, weights + t * dweights[:1]) if ridged else ()
        return np.sum(solved(matrix + t * change, y + t * dy, *options) * cotangent)

    for ridged in (False, True):
        step = 1e-4
        below, middle, above = (expected(t, ridged) for t in (-step, 0.0, step))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 1e-12 may be missed by a hair
            found = derivatives_along(partial(value, ridged=ridged), 0.0)
        np.testing.assert_allclose(found[0], middle, rtol=1e-7)
        np.testing.assert_allclose(found[1], (above - below) / (2 * step), rtol=1e-5)
        np.testing.assert_allclose(found[2], (above - 2 * middle + below) / step**2, rtol=1e-4)


@pytest.mark.parametrize(
    "name", in_turn(["wide", "tall", "neither"], backends=lambda name: ("jax", "torch", "torch"), always=["torch"])
)
def test_derivatives_without_a_ridge_are_those_of_the_weighted_problem(name):
    operator = OPERATORS[name]()
    matrix = operator.to_matrix()
    y, dweights = normal(2, operator.shape[0]), normal(1, operator.shape[0], seed=4)
    weights, cotangent = 0.2 + 2 * np.abs(normal(1, operator.shape[0], seed=3)), normal(2, operator.shape[1], seed=6)

    def value(t):
        given = ops.convert_to_tensor(weights) + t * ops.convert_to_tensor(dweights)
        changed = (1 + t) ** 2 * ops.convert_to_tensor(y)
        rows, given = (operator.out_space.pack(operator.out_space.split(each)) for each in (changed, given))
        found = ka.lstsq(operator, rows, weights=given)
        return ops.sum(operator.in_space.join(keras.tree.flatten(found.x)) * ops.convert_to_tensor(cotangent))

    def expected(t):
        return np.sum(solved(matrix, (1 + t) ** 2 * y, weights=weights + t * dweights) * cotangent)

    step = 1e-4
    found = derivatives_along(value, 0.0)
    np.testing.assert_allclose(found[1], (expected(step) - expected(-step)) / (2 * step), rtol=1e-5)
    np.testing.assert_allclose(found[2], (expected(step) - 2 * expected(0) + expected(-step)) / step**2, rtol=1e-3)


@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_limits_hold_and_the_objective_is_that_of_scipy(ridge):
    operator = OPERATORS["tall"]()
    matrix, y = operator.to_matrix(), normal(2, operator.shape[0])
    stacked = np.vstack([matrix, np.sqrt(ridge) * np.eye(matrix.shape[1])])
    for lower, upper in ((0.0, np.inf), (-0.2, 0.1)):
        options = {"upper": upper} if lower == 0.0 else {"lower": lower, "upper": upper}
        solve = ka.nnls if lower == 0.0 else ka.lstsq
        found = solve(operator, batch(operator.out_space, y), ridge=ridge, **options)
        x = rows_of(operator.in_space, found.x)
        assert numpy(found.converged).all()
        assert (x >= lower).all()
        assert (x <= upper).all()
        for row, one in zip(x, y, strict=True):
            right = np.concatenate([one, np.zeros(matrix.shape[1])])
            expected = scipy.optimize.lsq_linear(stacked, right, (lower, upper), tol=1e-14)
            np.testing.assert_allclose(row, expected.x, atol=1e-6)


@pytest.mark.in_turn("torch")
def test_derivative_between_limits_is_that_of_what_is_free():
    operator = OPERATORS["tall"]()
    (kernel,) = operator.variables()
    start, direction = numpy(kernel), normal(*kernel.shape, seed=5)
    y = batch(operator.out_space, normal(1, operator.shape[0]))

    def value(t):
        changed = ops.convert_to_tensor(start) + t * ops.convert_to_tensor(direction)
        with keras.StatelessScope(state_mapping=[(kernel, changed)]):
            found = ka.lstsq(operator, y, lower=-0.2, upper=0.3 + 0.2 * t)
            return ops.sum(ops.square(found.x)) + ops.sum(found.x)

    step = 1e-4
    points = [float(numpy(value(ops.convert_to_tensor(t, "float64")))) for t in (-step, 0.0, step)]
    found = derivatives_along(value, 0.0)
    np.testing.assert_allclose(found[1], (points[2] - points[0]) / (2 * step), rtol=1e-4)
    np.testing.assert_allclose(found[2], (points[2] - 2 * points[1] + points[0]) / step**2, rtol=1e-3)


def test_every_sample_has_its_own_status():
    operator = ka.operator(built(layers.Dense(4, use_bias=False), 3, dtype="float32"))
    y = normal(5, 4).astype("float32")
    y[1], y[2, 0], y[3] = 0, np.nan, 1e-20 * y[3]
    with pytest.warns(UserWarning, match="not finite in sample 2"):
        found = ka.lstsq(operator, y)
    assert numpy(found.converged).tolist() == [True, True, False, True, True]
    assert numpy(found.steps)[1] == 0
    x = numpy(found.x)
    assert np.isnan(x[2]).all()
    expected = np.linalg.pinv(operator.to_matrix().astype("float64")) @ y[[0, 3, 4]].T.astype("float64")
    np.testing.assert_allclose(
        x[[0, 3, 4]] / np.abs(expected.T).max(axis=1, keepdims=True),
        (expected / np.abs(expected).max(axis=0)).T,
        atol=1e-4,
    )
    with pytest.warns(UserWarning, match="in sample 0, 4, after 1 steps"):
        found = ka.lstsq(operator, y[[0, 1, 1, 1, 4]], max_steps=1)
    assert numpy(found.steps).tolist() == [1, 0, 0, 0, 1]
    assert numpy(ka.lstsq(operator, y[:0]).x).shape == (0, 3)
    assert re.match(
        r"Solution\(x of shape \(5, 3\), steps=\[1 0 0 0 1\], residual_norm=.*, converged=\[False", repr(found)
    )


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_kernels_of_any_scale_are_solved(scale):
    layer = built(layers.Dense(4, use_bias=False), 3, dtype="float32")
    layer.kernel.assign(numpy(layer.kernel) * scale)
    y = normal(2, 4).astype("float32")
    found = ka.lstsq(ka.operator(layer), y)
    expected = np.linalg.pinv(numpy(layer.kernel).T.astype("float64")) @ y.T
    np.testing.assert_allclose(numpy(found.x), expected.T, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    layer.kernel.assign(np.zeros((3, 4)))
    found = ka.lstsq(ka.operator(layer), y)
    assert numpy(found.converged).all()
    assert not numpy(found.x).any()


@pytest.mark.parametrize(
    ("dtype", "scale", "options"),
    in_turn(
        [
            (dtype, scale, options)
            for options in ({}, {"method": "lsmr"}, {"upper": 0.0})
            for dtype, scale in (("float32", 1e-30), ("float32", 1e35), ("float64", 1e-250), ("float64", 1e300))
        ],
        always=["torch"],
    ),
)
def test_right_sides_of_any_scale_are_solved(dtype, scale, options):
    operator = ka.operator(square(3) if dtype == "float64" else built(layers.Dense(4, use_bias=False), 3, dtype=dtype))
    operator = ka.vstack([operator, 2 * operator])
    y = [normal(2, *shape, seed=seed).astype(dtype) for seed, shape in enumerate(operator.out_shape)]
    plain = ka.lstsq(operator, y, **options)
    found = ka.lstsq(operator, [scale * each for each in y], **options)
    assert numpy(plain.x).any()
    assert numpy(found.converged).all()
    for name in ("x", "residual_norm"):
        expected = numpy(getattr(plain, name))
        np.testing.assert_allclose(numpy(getattr(found, name)) / scale, expected, rtol=1e-3, atol=1e-4)


def test_one_infinity_is_never_a_solution():
    y = normal(2, 1, 3)
    y[1, 0, 1] = np.inf
    for options in ({}, {"method": "lsmr"}, {"lower": 0.0}):
        with pytest.warns(UserWarning, match="not finite in sample 1"):
            found = ka.lstsq(ka.operator(square(3)), y, **options)
        assert numpy(found.converged).tolist() == [True, False]


@pytest.mark.in_turn("torch")
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_leaves_the_gradient_of_the_others(number):
    operator = OPERATORS["tall"]()
    (kernel,) = operator.variables()
    start, direction, y = (
        numpy(kernel),
        normal(*kernel.shape, seed=5),
        batch(operator.out_space, normal(2, operator.shape[0])),
    )

    def slope(y, options):
        def value(t):
            changed = ops.convert_to_tensor(start) + t * ops.convert_to_tensor(direction)
            with keras.StatelessScope(state_mapping=[(kernel, changed)]):
                return ops.sum(ops.square(ka.lstsq(operator, y, **options).x[1]))

        return derivatives_along(value, 0.0)[1]

    others = np.stack([y[1], y[1]])
    y[0].flat[3] = number
    for options in ({}, {"lower": 0.0}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert slope(y, options) == pytest.approx(slope(others, options), rel=1e-7) != 0


@pytest.mark.in_turn("torch", "jax", "tensorflow")
@pytest.mark.parametrize("options", [{}, {"method": "lsmr"}, {"lower": -9.0}], ids=str)
def test_weights_and_ridge_of_any_scale_give_the_same(options):
    operator = ka.operator(built(layers.Conv1D(4, 3, padding="same", use_bias=False), 5, 3, dtype="float32"))
    y, weights = (
        normal(2, 5, 4).astype("float32"),
        np.random.default_rng(0).uniform(0.1, 1, (2, 5, 4)).astype("float32"),
    )
    expected = ka.lstsq(operator, y, weights=weights, ridge=0.1, **options)
    for scale in (1e-30, 1e30):
        scaled = np.float32(scale) * weights
        found = ka.lstsq(operator, y, weights=scaled, ridge=0.1 * scale, **options)
        assert numpy(found.converged).all()
        np.testing.assert_allclose(numpy(found.x), numpy(expected.x), atol=1e-4)
        np.testing.assert_allclose(numpy(found.residual_norm), numpy(expected.residual_norm) * scale**0.5, rtol=1e-4)
    apart = np.array([[[1e-20]], [[1e20]]], "float32") * weights  # in one batch
    found = ka.lstsq(operator, y, weights=apart, **options)
    np.testing.assert_allclose(numpy(found.x), numpy(ka.lstsq(operator, y, weights=weights, **options).x), atol=1e-3)


@pytest.mark.in_turn("torch", "jax", "tensorflow")
@pytest.mark.parametrize("options", [{}, {"method": "lsmr"}, {"lower": -9.0}], ids=str)
def test_what_has_no_weight_may_be_anything(options):
    operator = ka.operator(built(layers.Conv1D(4, 1, use_bias=False), 1, 3))
    y, weights = normal(2, 1, 4), np.ones((2, 1, 4))
    y[0, 0, 1], weights[0, 0, 1] = np.nan, 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = ka.lstsq(operator, y, weights=weights, **options)
    rows = operator.to_matrix()[[0, 2, 3]]
    np.testing.assert_allclose(numpy(found.x)[0, 0], np.linalg.pinv(rows) @ y[0, 0, [0, 2, 3]], atol=1e-7)
    assert numpy(found.converged).all() and np.isfinite(numpy(found.residual_norm)).all()


@pytest.mark.any_backend
def test_solutions_too_large_for_half_precision_are_named():
    operator = 1e-3 * ka.operator(built(layers.Dense(3, use_bias=False), 3, dtype="float16"))
    y = normal(2, 3).astype("float32") * np.array([[1e6], [1e-2]], "float32")
    with pytest.warns(UserWarning, match="sample 0 has numbers that are too large for float16"):
        ka.lstsq(operator, y)


def test_half_precision_is_solved_in_float32():
    operator = ka.operator(built(layers.Dense(4, use_bias=False), 3, dtype="mixed_bfloat16"))
    y = normal(2, 4).astype("float32")
    found = ka.lstsq(operator, y)
    assert keras.backend.standardize_dtype(found.x.dtype) == "bfloat16"
    assert numpy(found.converged).all()


def test_solution_from_a_start_is_the_closest_one_to_it():
    operator = OPERATORS["wide"]()
    y, start = normal(2, operator.shape[0]), normal(2, operator.shape[1], seed=7)
    found = ka.lstsq(operator, batch(operator.out_space, y), x0=batch(operator.in_space, start))
    inverse = np.linalg.pinv(operator.to_matrix())
    expected = start + (y - start @ operator.to_matrix().T) @ inverse.T
    np.testing.assert_allclose(rows_of(operator.in_space, found.x), expected, atol=1e-7)


def test_callback_sees_every_step_and_may_end_them():
    operator = ka.operator(square(6))
    y, seen = normal(2, 1, 6), []
    with warnings.catch_warnings(action="error", category=UserWarning):  # it was ended on purpose
        found = ka.lstsq(operator, y, callback=lambda step, x: seen.append((step, numpy(x))) or step == 3)
    assert [step for step, _ in seen] == [1, 2, 3]
    np.testing.assert_allclose(seen[-1][1], numpy(found.x), rtol=1e-12)
    assert not numpy(found.converged).any()
    y[1, 0, 0] = np.nan
    with pytest.warns(UserWarning, match="is not finite in sample 1"):
        ka.lstsq(operator, y, callback=lambda step, x: step == 3)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch leaves its compiled functions for a solver")
def test_callback_is_not_called_by_compiled_functions():
    operator, seen = ka.operator(square(3)), []
    y = ops.convert_to_tensor(normal(2, 1, 3))

    def solve(y):
        return ka.lstsq(operator, y, callback=lambda step, x: seen.append(step)).x

    np.testing.assert_allclose(numpy(current().compiled(solve)(y)), numpy(ka.lstsq(operator, y).x), rtol=1e-9)
    assert not seen


@pytest.mark.in_turn("torch")
def test_preconditioner_saves_steps():
    layer, root = square(6), square(6)
    diagonal = 2.0 ** np.arange(6)
    layer.kernel.assign((np.diag(diagonal) + 0.1)[None])
    root.kernel.assign(np.diag(1 / diagonal)[None])
    operator = ka.operator(layer)
    y = normal(1, 1, 6)
    plain, aided = (
        ka.lstsq(operator, y, ridge=1e-3, tolerance=1e-6, preconditioner=p) for p in (None, ka.operator(root).gram())
    )
    assert numpy(aided.steps)[0] < numpy(plain.steps)[0]
    expected = solved(operator.to_matrix(), y[0], 1e-3)
    np.testing.assert_allclose(numpy(aided.x)[0], expected, rtol=1e-4)
    found = derivatives_along(lambda c: ops.sum(ka.lstsq(c * operator, y, ridge=1e-3, preconditioner=aid(root)).x), 1.0)
    plain = derivatives_along(lambda c: ops.sum(ka.lstsq(c * operator, y, ridge=1e-3).x), 1.0)
    np.testing.assert_allclose(found, plain, rtol=1e-6)


@pytest.mark.in_turn("torch")
def test_preconditioners_that_are_not_positive_definite_are_refused_or_named():
    operator, y = ka.operator(square(6)), normal(2, 1, 6)
    identity = ka.identity(operator.in_shape, dtype="float64")
    with pytest.raises(ValueError, match="positive definite.*Received: .*sample 0"):
        ka.lstsq(operator, y, ridge=0.1, preconditioner=-1 * identity)
    layer = square(6)
    layer.kernel.assign(np.diag([1.0, 1, 1, 1, 1, -1])[None])  # which the first gradient may not show
    with pytest.warns(UserWarning, match="not symmetric and positive definite"):
        ka.lstsq(operator, y, ridge=0.1, tolerance=1e-15, preconditioner=ka.operator(layer))


def aid(root):
    return ka.operator(root).gram()


@pytest.mark.in_turn("torch")
def test_gradient_that_is_not_solved_for_is_reported():
    operator = ka.operator(square(6))
    with pytest.warns(UserWarning, match="the gradient is not accurate"):
        derivatives_along(lambda c: ops.sum(ka.lstsq(c * operator, normal(1, 1, 6), ridge=1e-6, max_steps=2).x), 1.0)


@pytest.mark.in_turn("jax", "torch")
def test_factors_that_are_tensors_have_derivatives():
    operator = ka.operator(square(3))
    y = normal(1, 1, 3)

    def value(c):
        return ops.sum(ops.square(ka.lstsq(c * operator, y).x))

    found = derivatives_along(value, 2.0)
    np.testing.assert_allclose(found[1:], [-found[0], 1.5 * found[0]], rtol=1e-6)  # of s / c²


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"ridge": -1}, ValueError, "not negative"),
        ({"ridge": np.ones(2)}, ValueError, "one number"),
        ({"ridge": True}, ValueError, "one number"),
        ({"ridge": np.array(True)}, ValueError, "one number"),
        ({"weights": -np.ones(4)}, ValueError, "not negative"),
        ({"weights": np.ones(5)}, ValueError, "broadcast"),
        ({"x0": np.ones((2, 5))}, SizeError, "takes batches"),
        ({"lower": 1.0, "upper": 0.0}, ValueError, "nowhere above"),
        ({"lower": np.ones(7)}, ValueError, "broadcast"),
        ({"method": "qr"}, ValueError, "one of"),
        ({"gradient": "none"}, ValueError, "one of"),
        ({"tolerance": 0}, ValueError, "between 0 and 1"),
        ({"max_steps": 0}, ValueError, "positive integer"),
        ({"max_steps": 2.5}, ValueError, "positive integer"),
        ({"preconditioner": 3}, ValueError, "is an operator"),
        ({"preconditioner": ka.identity((3,), dtype="float64"), "method": "lsmr"}, ValueError, "cgls"),
        ({"max_steps": 2**31}, ValueError, "32 bits"),
        ({"callback": 3}, ValueError, "is a function"),
        ({"callback": lambda step, x: np.ones(2)}, ValueError, "returns one value"),
        ({"x0": np.ones((3, 3))}, SizeError, "a sample for each of y"),
        ({"x0": keras.KerasTensor((2, 3))}, ValueError, "computes at once"),
        ({"weights": np.ones((3, 4))}, ValueError, "of each sample of y"),
        ({"lower": np.ones((3, 3))}, ValueError, "of each sample of y"),
        ({"weights": "a"}, ValueError, "has numbers"),
        ({"upper": "a"}, ValueError, "has numbers"),
    ],
)
def test_arguments_without_sense_are_refused(options, error, words):
    operator = ka.operator(built(layers.Dense(4, use_bias=False), 3))
    with pytest.raises(error, match=words) as caught:
        ka.lstsq(operator, np.ones((2, 4)), **options)
    assert "Received: " in str(caught.value)


def test_what_is_no_operator_or_no_batch_of_its_outputs_is_refused():
    layer = built(layers.Dense(4, use_bias=False), 3)
    with pytest.raises(ValueError, match=r"Pass `keras_adjoint.operator\(layer\)`"):
        ka.lstsq(layer, np.ones((2, 4)))
    with pytest.raises(SizeError, match="takes batches"):
        ka.lstsq(ka.operator(layer), np.ones((2, 5)))
    with pytest.raises(SizeError, match="a list of float, which `np.asarray` makes an array of"):
        ka.lstsq(ka.operator(layer), np.ones((2, 4)).tolist())
    with pytest.raises(ValueError, match="lower limit of 0"):
        ka.nnls(ka.operator(layer), np.ones((2, 4)), lower=1)
