"""A bound of the largest eigenvalue of positive semidefinite Hermitian matrices, by products of matrices alone."""

import keras
from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.precision import epsilon

SQUARINGS = 8


def largest_eigenvalue_bound(real: Tensor, imaginary: Tensor | None = None, squarings: int = SQUARINGS) -> Tensor:
    """A number that is not below the largest eigenvalue λ of a matrix S, and at most n^(1/512) times as large.

    With p = 2⁸, λ = ‖Sᵖ‖^(1/p) ≤ ‖Sᵖ‖_F^(1/p) ≤ (√n λᵖ)^(1/p), and Sᵖ takes eight squarings (Delattre, Barthélemy, Araujo and
    Allauzen 2023, theorem 1). Unlike eigenvectors, which are not unique, it is differentiable wherever S is not zero.

    Args:
        real: The real parts of matrices, of shape `(..., n, n)`.
        imaginary: Their imaginary parts; by default zero.
        squarings: How many, 8 unless it is to be closer.

    Returns:
        Tensor of shape `(...)`.
    """
    return powered(real, imaginary, squarings)[0]


def powered(
    real: Tensor, imaginary: Tensor | None = None, squarings: int = SQUARINGS
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(the bound above, real and imaginary part of a multiple of Sᵖ): its columns are close to the top eigenvector."""
    if real.shape[-1] == 1:
        return real[..., 0, 0], ops.ones_like(real), ops.zeros_like(real)
    logarithm = 0.0
    for squaring in range(1, squarings + 1):
        # S is Hermitian, so Im (S²) = Re Im + Im Re = Re Im − (Re Im)ᵀ, and the trace of S² is ‖S‖_F².
        product = None if imaginary is None else real @ imaginary
        real = real @ real if imaginary is None else real @ real - imaginary @ imaginary
        imaginary = None if product is None else product - ops.swapaxes(product, -1, -2)
        trace = ops.trace(real, axis1=-2, axis2=-1) + _SMALLEST
        logarithm = logarithm + ops.log(trace) / 2**squaring
        real, imaginary = (None if part is None else part / trace[..., None, None] for part in (real, imaginary))
    squares = ops.square(real) if imaginary is None else ops.square(real) + ops.square(imaginary)
    norm = ops.sqrt(ops.sum(squares, axis=(-2, -1)) + _SMALLEST)
    return ops.exp(logarithm + ops.log(norm) / 2**squarings), real, imaginary


_SMALLEST = 1e-30  # added to squares, so that zeros have a derivative
_RANGE = {"float32": (1e-30, 1e36), "float64": (1e-300, 1e300)}  # of what is divided by, whose reciprocals are not zero


def scaled(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """(the kernel over the largest of its absolute values, that value): what is squared may not overflow, nor vanish.

    Of zeros, and where that value is infinite, the first are ones, so that what is made of both is zero or infinite.
    """
    largest = ops.stop_gradient(ops.max(ops.abs(kernel)))
    least, most = _RANGE.get(keras.backend.standardize_dtype(kernel.dtype), _RANGE["float32"])
    scale, is_extreme = ops.clip(largest, least, most), ops.logical_or(largest == 0, ops.isinf(largest))
    # Of zeros it is exactly zero, and so is the derivative, for which they may not be divided by what they are.
    return ops.where(is_extreme, ops.ones_like(kernel), kernel / scale), ops.where(is_extreme, largest, scale)


def matrix_bound(matrix: Tensor) -> Tensor:
    """A number that is not below the norm of a matrix, and differentiable by it; for a stack of matrices one each.

    Args:
        matrix: Tensor of shape `(..., rows, columns)`.

    Returns:
        Tensor of shape `(...)`.
    """
    matrix, scale = scaled(matrix if matrix.shape[-2] <= matrix.shape[-1] else ops.swapaxes(matrix, -1, -2))
    rows, depth = matrix.shape[-2:]
    squared = largest_eigenvalue_bound(matrix @ ops.swapaxes(matrix, -1, -2))
    return (
        scale
        * ops.sqrt(squared)
        * (1 + epsilon(keras.backend.standardize_dtype(matrix.dtype)) * rows**0.5 * (depth + rows))
    )
