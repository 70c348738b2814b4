"""The norm of an operator, its largest singular value, by Lanczos bidiagonalisation from a random start.

Golub and Kahan's recurrence (1965) makes of a unit vector v₁ orthonormal vectors in which A is bidiagonal:

    αⱼ uⱼ = A vⱼ − βⱼ₋₁ uⱼ₋₁,    βⱼ vⱼ₊₁ = Aᵀ uⱼ − αⱼ vⱼ.

The largest eigenvalue θ² of the tridiagonal T, of αⱼ² + βⱼ₋₁² and αⱼ βⱼ, approaches that of AᵀA from below.

When is it near enough? T belongs to polynomials pⱼ that are orthonormal by the weights that v₁ has on the eigenvectors of
AᵀA. So the weight on an eigenvalue λ is at most 1 / Σⱼ pⱼ(λ)², which falls the faster, the farther λ lies above θ². A random
start has a smaller weight than π δ² / 2n on the top eigenvector with a probability of at most δ. The iteration ends when
Σⱼ pⱼ(λ)² at λ = (1 + tolerance)² θ² is larger than 2n / π δ², so that with that probability at most the norm is above
(1 + tolerance) θ (Hochstenbach 2013). It ends after the steps that are enough for every operator anyway (Kuczyński and
Woźniakowski 1992).

Of a large convolution, the top singular vector is nearly a plane wave, and the norm nearly that of the symbol. The start is the
sum of that wave and of the random vector, both of length 1. A coefficient of the random vector is close to zero more often
than to any other number, so a weight of the sum, whose length is at most 2, is smaller than π δ² / 8n with a probability of at
most δ. The iteration also ends when (1 + tolerance) θ reaches the bound by the symbol.
"""

import math

import numpy as np
from keras import ops

from keras_adjoint.operators.lanczos import Lanczos, length_of, within_limits
from keras_adjoint.operators.linear_map import LinearMap
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current
from keras_adjoint.ops.precision import epsilon

FAILURE = 1e-3  # probability over the random start
ROUNDING = 1e-4  # by which θ and ‖A v‖ may differ
LENGTH_ROUNDING = 4  # units in the last place that ‖A v‖ may be too large by


def norm_of(operator: LinearMap, tolerance: float, seed: int) -> Tensor:
    """See `Operator.norm`."""
    narrow = operator if operator.in_space.size <= operator.out_space.size else operator.T
    size = narrow.in_space.size
    start = np.random.default_rng(seed).standard_normal((1, size))
    start = ops.convert_to_tensor(start / np.linalg.norm(start), operator.precision)
    values = [ops.stop_gradient(ops.convert_to_tensor(each)) for each in (*narrow.variables(), *narrow.scalars())]
    if size == 1:
        top, theta = start, ops.zeros((), start.dtype)
    else:
        key = ("norm", tolerance)
        if key not in narrow.functions:
            iteration = Lanczos(narrow, tolerance, most_steps(size, tolerance), 2 * size / (math.pi * FAILURE**2))
            narrow.functions[key] = current().compiled(iteration.top_vector)
        top, theta = map(ops.stop_gradient, narrow.functions[key](values, start))
    # ‖A v‖ is never above the norm, and its derivative at the top singular vector is uᵀ dA v. A vector that is put together of
    # others than the first time falls short of θ.
    length = length_of(narrow.apply_to_rows(top))
    fixed = ops.stop_gradient(length)
    estimate = length * ops.where(theta > (1 + ROUNDING) * fixed, theta / within_limits(fixed), 1.0)
    # The unit vector, A times it and the length of that are rounded, by about two units in what was seen, and an estimate
    # from below may not be above the norm, nor above a bound that is as large.
    return estimate * (1 - LENGTH_ROUNDING * epsilon(operator.precision))


def most_steps(size: int, tolerance: float) -> int:
    """How many steps are enough for every operator on `size` numbers, with a probability of 1 − `FAILURE`.

    With the relative error ε of θ², the probability of failure is at most 1.648 √n exp(−√ε (2k − 1)) after k steps.
    """
    error = 1 - 1 / (1 + tolerance) ** 2
    steps = (math.log(1.648 * math.sqrt(size) / FAILURE) / math.sqrt(error) + 1) / 2
    return min(size, math.ceil(steps))
