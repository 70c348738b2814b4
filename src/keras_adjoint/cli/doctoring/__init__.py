"""What `keras-adjoint doctor` does."""
