"""What an adjoint convolution costs, as ratios to the forward and to the backend's own transposed convolution."""
