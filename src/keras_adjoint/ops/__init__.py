"""Tensors and integers: geometry, windows, precision, the dot test, backends and algorithms. No Keras layer."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any  # of whichever backend Keras runs on; no backend's type says what all three have in common
Size: TypeAlias = Any  # along one axis: an integer, or a scalar tensor where only the running graph knows it
Shape: TypeAlias = tuple[Any, ...]  # sizes: integers, None where unknown, scalar tensors where only the graph knows
