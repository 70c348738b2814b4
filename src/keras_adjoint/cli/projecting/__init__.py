"""What `keras-adjoint deconv` does."""
