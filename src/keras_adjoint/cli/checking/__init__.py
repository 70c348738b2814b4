"""What `keras-adjoint check` does."""
