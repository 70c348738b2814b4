"""Least squares by this package and by others: times to the same error, and the memory of gradients."""
