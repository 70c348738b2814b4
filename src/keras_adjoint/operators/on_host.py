"""Numbers on the host, where NumPy and SciPy compute. A tensor in code that is being compiled or transformed has none."""

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_adjoint.errors import KerasAdjointError
from keras_adjoint.ops import Tensor


def on_host(tensor: Tensor, what: str) -> NDArray[Any]:
    """A tensor as a NumPy array.

    Args:
        tensor: The tensor.
        what: What is computed of it, for the error.

    Raises:
        KerasAdjointError: If it has no numbers.
    """
    try:
        return np.asarray(ops.convert_to_numpy(tensor))
    except (TypeError, NotImplementedError, RuntimeError) as error:  # of each backend its own
        raise KerasAdjointError(
            f"{what} is computed of numbers on the host, and in code that is being compiled or transformed there are none. "
            f"Compute it outside of that code. Received: a tensor of type {type(tensor).__name__}"
        ) from error
