"""Ways to compute an adjoint convolution: one file each, and `choose` with the table of them."""
