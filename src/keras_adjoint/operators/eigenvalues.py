"""A bound of the largest eigenvalue of positive semidefinite Hermitian matrices, by products of matrices alone."""

import keras
from keras import ops

from keras_adjoint.ops import Tensor
from keras_adjoint.ops.precision import epsilon

SQUARINGS = 8


def largest_eigenvalue_bound(real: Tensor, imaginary: Tensor | None = None) -> Tensor:
    """A number that is not below the largest eigenvalue λ of a matrix S, and at most n^(1/512) times as large.

    With p = 2⁸, λ = ‖Sᵖ‖^(1/p) ≤ ‖Sᵖ‖_F^(1/p) ≤ (√n λᵖ)^(1/p), and Sᵖ takes eight squarings (Delattre, Barthélemy, Araujo and
    Allauzen 2023, theorem 1). Unlike eigenvectors, which are not unique, it is differentiable wherever S is not zero.

    Args:
        real: The real parts of matrices, of shape `(..., n, n)`.
        imaginary: Their imaginary parts; by default zero.

    Returns:
        Tensor of shape `(...)`.
    """
    if real.shape[-1] == 1:
        return real[..., 0, 0]
    found = 0.0
    for squaring in range(SQUARINGS + 1):
        if squaring:
            # S is Hermitian, so Im (S²) = Re Im + Im Re = Re Im − (Re Im)ᵀ.
            product = None if imaginary is None else real @ imaginary
            real = real @ real if imaginary is None else real @ real - imaginary @ imaginary
            imaginary = None if product is None else product - ops.swapaxes(product, -1, -2)
        squares = ops.square(real) if imaginary is None else ops.square(real) + ops.square(imaginary)
        norm = ops.sqrt(ops.sum(squares, axis=(-2, -1), keepdims=True) + _SMALLEST)
        real, imaginary = real / norm, None if imaginary is None else imaginary / norm
        found = found + ops.log(norm[..., 0, 0]) / 2**squaring
    return ops.exp(found)


_SMALLEST = 1e-30  # added to squares, so that zeros have a derivative


def scaled(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """(the kernel over the largest of its absolute values, that value): what is squared may not overflow, nor vanish."""
    scale = ops.maximum(ops.stop_gradient(ops.max(ops.abs(kernel))), _SMALLEST)
    return kernel / scale, scale


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
