"""Tensors and integers: geometry, windows, precision, the dot test, backends and algorithms. No Keras layer."""
