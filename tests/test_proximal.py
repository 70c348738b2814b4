"""Proximal operators: each gives the minimum that defines it, and the loop around them finds known solutions."""

import numpy as np
import pytest
from autodiff import gradients_of
from keras import ops
from scipy.optimize import minimize
from sklearn.linear_model import Lasso

from keras_adjoint.ops.backend import current
from keras_adjoint.solvers.loops import Loop
from keras_adjoint.solvers.proximal import PROXIMALS, Details, proximal
from keras_adjoint.solvers.proximal_gradient import proximal_gradient
from keras_adjoint.solvers.total_variation import Differences, spatial_axes

SHAPES = [(2, 7), (2, 6, 2), (2, 5, 4, 2), (1, 3, 4, 3, 2)]


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def numbers(shape, seed=0):
    return ops.convert_to_tensor(np.random.default_rng(seed).normal(size=shape), "float64")


def scalar(number):
    return ops.convert_to_tensor(number, "float64")


@pytest.mark.parametrize("name", PROXIMALS)
@pytest.mark.parametrize("t", [0.0, 0.3])
def test_it_gives_the_minimum_of_its_definition(name, t):
    details = Details(lower=-0.2, upper=0.5, inner_steps=200)
    x = numbers((2, 4, 3, 2))
    found = current().compiled(proximal(name, details))(x, scalar(t))

    def objective(z):
        penalty = (
            t * PROXIMALS[name].penalty(z, details) if PROXIMALS[name].is_scaled else 0 * ops.sum(z, axis=(1, 2, 3))
        )
        return numpy(ops.sum(ops.square(z - x), axis=(1, 2, 3)) / 2 + penalty)

    def feasible(z):
        return z if PROXIMALS[name].is_scaled and name != "soft_nonnegative" else proximal(name, details)(z, scalar(0))

    least = objective(found)
    assert np.isfinite(numpy(PROXIMALS[name].penalty(found, details))).all()
    for seed in range(20):
        for size in (1e-1, 1e-3):
            other = feasible(found + size * numbers(found.shape, seed + 1))
            assert (objective(other) >= least - 1e-9).all()


def test_soft_thresholds_by_hand():
    x = ops.convert_to_tensor(np.array([[-2.0, -0.5, 0.0, 0.5, 2.0]]))
    assert numpy(proximal("soft")(x, scalar(1))).tolist() == [[-1.0, 0.0, 0.0, 0.0, 1.0]]
    assert numpy(proximal("soft_nonnegative")(x, scalar(1))).tolist() == [[0.0, 0.0, 0.0, 0.0, 1.0]]
    assert numpy(proximal("box")(x, scalar(1))).tolist() == [[0.0, 0.0, 0.0, 0.5, 1.0]]


@pytest.mark.parametrize("shape", SHAPES, ids=[f"rank {len(shape)}" for shape in SHAPES])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_adjoint_of_differences_and_their_norm(shape, data_format):
    D = Differences(spatial_axes(len(shape), data_format))
    x = numbers(shape)
    q = numbers((*shape, len(D.axes)), 1)
    one, other = (float(ops.sum(a * b)) for a, b in ((D.forward(x), q), (x, D.adjoint(q))))
    assert one == pytest.approx(other, rel=1e-12)
    for _ in range(30):
        x = D.adjoint(D.forward(x))
        x = x / ops.sqrt(ops.sum(ops.square(x)))
    assert float(ops.sum(ops.square(D.forward(x)))) <= D.norm_squared
    assert numpy(D.forward(ops.ones(shape))).any() == 0


def test_total_variation_of_a_line_is_that_of_a_reference():
    x = numbers((1, 12))
    found = numpy(current().compiled(proximal("tv", Details(inner_steps=1000)))(x, scalar(0.4)))[0]
    # The dual in one dimension has limits alone: min ½‖x − Dᵀq‖² with |q| ≤ 0.4.
    D, row = np.diff(np.eye(12), axis=0), numpy(x)[0]
    dual = minimize(
        lambda q: (0.5 * np.sum((row - D.T @ q) ** 2), -D @ (row - D.T @ q)),
        np.zeros(11),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-0.4, 0.4)] * 11,
        options={"ftol": 1e-15, "gtol": 1e-12},
    )
    np.testing.assert_allclose(found, row - D.T @ dual.x, atol=1e-5)


def test_gradients_of_the_total_variation_are_finite_where_nothing_varies():
    run = proximal("tv", Details(inner_steps=3))
    (found,) = gradients_of(lambda x: ops.sum(run(x, ops.convert_to_tensor(0.1))))([ops.zeros((1, 4, 4, 1))])
    assert np.isfinite(numpy(found)).all()


@pytest.mark.parametrize("accelerated", [True, False], ids=["fista", "ista"])
def test_the_loop_finds_the_lasso_of_scikit_learn_and_leaves_a_bad_sample_alone(accelerated):
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(20, 8))
    y = generator.normal(size=(3, 20))
    y[1, 0] = np.nan
    A, rows = ops.convert_to_tensor(matrix), ops.convert_to_tensor(y)
    tau, weight, prox = 1 / np.linalg.norm(matrix, 2) ** 2, 2.0, proximal("soft")

    def step(x):
        gradient = (x @ ops.transpose(A) - rows) @ A  # PyTorch rounds Keras' products to float32
        return prox(x - scalar(tau) * gradient, scalar(tau * weight))

    limit = ops.convert_to_tensor(np.full((3, 1), 1e-10))
    found = proximal_gradient(step, ops.zeros((3, 8), "float64"), limit, Loop(3000), accelerated=accelerated)
    assert numpy(found.converged)[:, 0].tolist() == [True, False, True]
    for sample in (0, 2):
        lasso = Lasso(alpha=weight / 20, fit_intercept=False, tol=1e-12, max_iter=100000).fit(matrix, y[sample])
        np.testing.assert_allclose(numpy(found.x)[sample], lasso.coef_, atol=1e-7)
    assert (numpy(found.steps) < 3000).all()
