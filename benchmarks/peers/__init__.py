"""The adjoint of a convolution beside those of other libraries of linear operators, on the same work."""
