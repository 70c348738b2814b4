"""Solutions x of A x ≈ y for the operators of `keras_adjoint.operators`: least squares, and with penalties, in unrolled steps."""
