"""What `keras-adjoint mirror` does."""
