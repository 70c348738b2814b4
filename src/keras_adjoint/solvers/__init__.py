"""Solutions x of A x ≈ y for operators: least squares, penalties in unrolled steps or to convergence, and sparse codes."""
