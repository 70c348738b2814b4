"""Solvers of ‖A x − y‖² + ridge·‖x‖² for a batch y, by the name of their library, as functions of a tolerance.

Each gets the same operator, by its bridge; SigPy, for which there is none, by a `Linop` around the one for SciPy. SciPy, PyLops
and SigPy take one sample at a time. Each is imported where it is used: not every environment has all.
"""

import numpy as np
from keras import ops

import keras_adjoint as ka

MAX_STEPS = 1000


def ours(method):
    """This package's."""
    import jax

    def make(operator, ridge, tolerance):
        def solve(y):
            return ka.lstsq(operator, y, ridge=ridge, tolerance=tolerance, method=method, max_steps=MAX_STEPS).x

        return jax.jit(solve)

    return make


def by_lineax(operator, ridge, tolerance):
    """Conjugate gradients on the normal equations, mapped over the batch."""
    import jax
    import lineax

    linear = operator.to_lineax()
    taken = jax.ShapeDtypeStruct(operator.in_shape, operator.dtype)

    def solve(y):
        normal = lineax.FunctionLinearOperator(
            lambda x: linear.T.mv(linear.mv(x)) + ridge * x, taken, tags=lineax.positive_semidefinite_tag
        )
        solver = lineax.CG(rtol=tolerance, atol=0, max_steps=MAX_STEPS)
        return lineax.linear_solve(normal, linear.T.mv(y), solver, throw=False).value

    return jax.jit(jax.vmap(solve))


def by_scipy(operator, ridge, tolerance):
    """LSMR."""
    import scipy.sparse.linalg

    linear = operator.to_scipy()

    def solve(y):
        rows = ops.convert_to_numpy(y).reshape(len(y), -1)
        options = {"damp": ridge**0.5, "atol": tolerance, "btol": 0, "conlim": 0, "maxiter": MAX_STEPS}
        return np.stack([scipy.sparse.linalg.lsmr(linear, row, **options)[0] for row in rows])

    return solve


def by_pylops(operator, ridge, tolerance):
    """CGLS, whose tolerance is one of ‖y − A x‖, so that it takes a number of steps in its place."""
    import pylops

    linear = operator.to_pylops()
    steps = round(-20 * np.log10(tolerance))

    def solve(y):
        rows = ops.convert_to_numpy(y).reshape(len(y), -1)
        start = np.zeros(operator.in_space.size, rows.dtype)
        options = {"damp": ridge**0.5, "niter": steps, "tol": 0}
        return np.stack([np.ravel(pylops.cgls(linear, row, x0=start, **options)[0]) for row in rows])

    return solve


def by_sigpy(operator, ridge, tolerance):
    """Conjugate gradients on the normal equations, whose tolerance is ‖residual‖, absolute."""
    import sigpy

    linear = operator.to_scipy()
    outputs, inputs = linear.shape

    class Linop(sigpy.linop.Linop):
        def __init__(self, apply, apply_adjoint, out_size, in_size):
            self.pair = apply, apply_adjoint
            super().__init__((out_size,), (in_size,))

        def _apply(self, x):
            return self.pair[0](x)

        def _adjoint_linop(self):
            return Linop(*self.pair[::-1], *self.ishape, *self.oshape)

    A = Linop(linear.matvec, linear.rmatvec, outputs, inputs)

    def solve(y):
        rows = ops.convert_to_numpy(y).reshape(len(y), -1)
        options = {"lamda": ridge, "max_iter": MAX_STEPS, "show_pbar": False}
        return np.stack(
            [
                sigpy.app.LinearLeastSquares(
                    A, row, tol=tolerance * float(np.linalg.norm(linear.rmatvec(row))), **options
                ).run()
                for row in rows
            ]
        )

    return solve


LIBRARIES = {
    "`lstsq`, cgls": ours("cgls"),
    "`lstsq`, lsmr": ours("lsmr"),
    "lineax, CG": by_lineax,
    "SciPy, LSMR": by_scipy,
    "PyLops, CGLS": by_pylops,
}
PEERS = {"SigPy, CG": by_sigpy}
