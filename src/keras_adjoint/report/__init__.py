"""One HTML file about a model: its mirror, its kernels, how exact each adjoint is, and what comes back for pictures."""
