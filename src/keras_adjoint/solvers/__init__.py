"""Least squares and what is built of them: solutions x of A x ≈ y for the operators of `keras_adjoint.operators`."""
