"""One HTML file about a model: its mirror, its kernels, the adjoint test of each layer, and reconstructions of pictures."""
