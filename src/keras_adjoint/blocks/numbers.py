"""What arrays hold that are read in blocks or chunks: real numbers, in the byte order of the processor."""

from typing import Any

import numpy as np

from keras_adjoint.operators.space import is_real


def is_of_numpy(dtype: Any) -> bool:
    """Whether NumPy has a dtype, as it does not have those of PyTorch's and TensorFlow's tensors."""
    try:
        np.dtype(dtype)
    except TypeError:
        return False
    return True


def check_real(name: str, array: Any) -> None:
    """Raise a ValueError if an array holds something else than real numbers, such as complex ones, which casts make real."""
    if not is_real(array.dtype):
        raise ValueError(f"{name} holds real numbers. Received: an array of dtype {array.dtype}")


def native(array: Any) -> Any:
    """The same numbers as backends take them: files may have another byte order, and wider floats."""
    if not isinstance(array, np.ndarray):
        return array
    dtype = np.dtype("float64") if array.dtype.kind == "f" and array.itemsize > 8 else array.dtype.newbyteorder("=")
    return array.astype(dtype, copy=False)
