"""Whole models: the graph, its backward pass, `adjoint`, mirrors and their policies."""
