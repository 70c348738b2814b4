"""Norms of convolutions and other layers, as this package and others compute them, beside the true ones."""
