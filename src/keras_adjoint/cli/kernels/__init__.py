"""What `keras-adjoint kernel` does."""
