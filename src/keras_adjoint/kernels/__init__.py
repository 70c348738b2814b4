"""Kernels and biases as arrays: layouts, transposes, and numbers of channels."""

VARIABLES = ("kernel", "embeddings")  # how the names of variables end that an adjoint is made of
BIAS_MODES = ("none", "own", "subtract", "repeat", "average", "learned")  # what an adjoint does with biases
