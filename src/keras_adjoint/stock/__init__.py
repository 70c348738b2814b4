"""Adjoint layers converted into stock Keras layers: steps and pieces, and a table of converters by layer type."""
