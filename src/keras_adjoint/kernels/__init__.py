"""Kernels and biases as arrays: layouts, transposes, and numbers of channels."""
