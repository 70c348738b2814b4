"""What `keras-adjoint inspect` does."""
